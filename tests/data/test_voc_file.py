import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detr.classes import Classes
from detr.data.coco import CocoDataset
from detr.data.voc_file import read_xml, read_xml_files
from detr.errors import InputError


def thing(name="cat", box=(1, 1, 10, 10), more=""):
    edges = "".join(f"<{edge}>{v}</{edge}>" for edge, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"


@pytest.fixture
def put(tmp_path):
    def putting(name="a", *things, size=SIZE, file_name="", image=".jpg"):
        said = f"<filename>{file_name}</filename>" if file_name else ""
        text = f"<annotation>{said}{size}{''.join(things)}</annotation>"
        (tmp_path / f"{name}.xml").write_text(text, encoding="utf-8")
        if image:
            Image.new("RGB", (20, 10)).save(tmp_path / f"{name}{image}")
        return tmp_path

    return putting


def read(folder, **options):
    return read_xml_files(folder, images=folder, beside=(folder,), **options)


def test_pixels_are_counted_from_1_and_both_ends_belong_to_the_box(put):
    found = read(put("a", thing("dog", (1, 1, 20, 10)), thing("cat", (5, 3, 5, 3)), thing("cat", (2.5, 1, 7.5, 4))))
    assert found.boxes.tolist() == [[0, 0, 20, 10], [4, 2, 1, 1], [1.5, 0, 6, 4]]
    assert found.areas.tolist() == [200, 1, 24]
    assert found.classes == Classes((0, 1), ("cat", "dog")) and found.labels.tolist() == [1, 0, 0]
    assert found.image_ids == ("a",) and found.file_names == ("a.jpg",)
    assert (found.heights[0], found.widths[0]) == (10, 20) and found.notes == ()


def test_difficult_objects_are_crowds(put):
    folder = put("a", thing(more="<difficult>1</difficult>"), thing(more="<difficult>0</difficult>"))
    found = read(folder)
    assert found.crowd.tolist() == [True, False]
    assert "1 object is marked difficult" in found.notes[0]
    assert len(CocoDataset(found, folder)[0].boxes) == 1


def test_hidden_files_beside_the_annotations_are_none(put):
    put("a", thing()).joinpath("._a.xml").write_bytes(b"of a file manager")
    assert read(put("a", thing())).image_ids == ("a",)


def test_parts_of_an_object_are_not_objects(put):
    part = f"<part>{thing('head', (2, 2, 3, 3)).replace('object>', 'piece>')}<name>head</name></part>"
    assert len(read(put("a", thing(more=part))).boxes) == 1


def test_a_size_that_is_missing_is_read_from_the_image(put):
    assert read_xml(put("a", thing()) / "a.xml").size == (10, 20)
    for size in ("", "<size><width>0</width><height>0</height></size>", "<size><width>20</width></size>"):
        assert read_xml(put("a", thing(), size=size) / "a.xml").size == (0, 0)
        found = read(put("a", thing(), size=size))
        assert (found.heights[0], found.widths[0]) == (10, 20)
    put("b", thing(), size="").joinpath("b.jpg").write_bytes(b"")
    assert read(put("a", thing())).heights.tolist() == [10, 0]


def test_the_image_is_the_one_called_as_the_file_or_the_one_it_names(put):
    put("a", thing(), file_name="long ago.jpg", image=".png")
    put("b", thing(), file_name="other.jpg", image="").joinpath("a.png").rename(put().parent / "nothing")
    folder = put("a", thing(), file_name="long ago.jpg", image=".png")
    Image.new("RGB", (20, 10)).save(folder / "other.jpg")
    (folder / "a.jpg").unlink()
    assert read(folder).file_names == ("a.png", "other.jpg")
    Image.new("RGB", (20, 10)).save(folder / "a.bmp")
    with pytest.raises(InputError, match=r"its image could be a\.bmp or a\.png"):
        read(folder)
    put("a", thing(), file_name="a.bmp", image="")
    found = read(folder)
    assert found.file_names == ("a.bmp", "other.jpg") and "1 image without an XML file left out" in found.notes


def test_a_filename_cannot_lead_out_of_the_folder(put):
    for name in ("../../etc/passwd", "/etc/passwd", "C:\\x.jpg"):
        with pytest.raises(InputError, match="leaves the image folder"):
            read(put("a", thing(), file_name=name, image=""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", r"a\.xml:1:13: not valid XML: no element found"),
        ("", r"a\.xml:1:1: not valid XML"),
        ("<html></html>", "expected <annotation>, found <html>"),
        ("<annotation><object/></annotation>", "object 1 has no name"),
        ("<annotation><object><name>cat</name></object></annotation>", r"object 1 \('cat'\) has no bndbox"),
        (
            f"<annotation>{thing(box=(1, 2, 3, 'x'))}</annotation>",
            r"object 1 \('cat'\) has ymax 'x'; expected a number",
        ),
        (f"<annotation>{thing(box=(1, 2, 3, 'nan'))}</annotation>", "has ymax 'nan'"),
        (f"<annotation>{thing(box=(1, '', 3, 4))}</annotation>", "has ymin ''"),
        ("<annotation><size><width>wide</width><height>1</height></size></annotation>", "size has width 'wide'"),
        ("<annotation><size><width>1.5</width><height>1</height></size></annotation>", "a whole number of pixels"),
        ("<?xml version='1.0' encoding='nonsense'?><annotation/>", "not valid XML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_xml(tmp_path / "a.xml")
    assert "\n" not in str(caught.value) and str(tmp_path / "a.xml") in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_never_expanded(tmp_path, encoding):
    lol = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 30))
    trap = f'<!DOCTYPE x [<!ENTITY a0 "ha">{lol}]><annotation><filename>&a29;</filename></annotation>'
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{trap}'.encode(encoding))
    with pytest.raises(InputError, match="has a DOCTYPE"):
        read_xml(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text('<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>')
    with pytest.raises(InputError, match="has a DOCTYPE"):
        read_xml(tmp_path / "a.xml")


def test_flat_boxes_are_left_out_with_their_place(put):
    found = read(put("a", *[thing()] * 30, thing(box=(5, 5, 4, 9))))
    assert len(found.boxes) == 30 and "a.xml: object 31 [4, 4, 0, 5]; left out" in found.notes[0]


def test_names_of_a_list_are_the_classes_and_others_are_refused(put):
    names = Classes.from_names(("dog", "cat", "bird"))
    folder = put("a", thing("cat"), thing("dog"))
    assert read(folder, names=names).labels.tolist() == [1, 0]
    with pytest.raises(InputError, match=r"a\.xml: object 1 is 'bord', none of the 3 classes .*did you mean 'bird'"):
        read(put("a", thing("bord")), names=names)


def test_a_set_without_objects_has_no_classes(put):
    with pytest.raises(InputError, match="no object in any XML file"):
        read(put("a"))
    np.testing.assert_array_equal(read(put("a"), names=Classes.from_names(("cat",))).boxes, np.zeros((0, 4)))


tags = ("annotation", "object", "name", "bndbox", "xmin")
others = ("1", "1e999", "-", "&lt;", "&x;", "<!--", "-->", "<![CDATA[", "]]>", "<?xml?>", "\x00", "cat")
pieces = st.sampled_from([*(f"<{tag}>" for tag in tags), *(f"</{tag}>" for tag in tags), *others])


@given(st.one_of(st.lists(pieces).map(lambda parts: "".join(parts).encode()), st.binary()))
@settings(max_examples=100, deadline=None)
def test_whatever_an_xml_file_holds_is_read_or_refused_in_one_line(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.xml"
        path.write_bytes(data)
        try:
            assert np.isfinite(read_xml(path).boxes).all()
        except InputError as problem:
            assert str(path) in str(problem) and "\n" not in str(problem)
