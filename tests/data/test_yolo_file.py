import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detr.data.sources import find_split
from detr.errors import InputError, UsageError


def put(root, rows, names="[cat, dog]", size=(200, 100), **more):
    """A set of one image `images/train/a.png` with these label rows, and whatever else the YAML is to say."""
    (root / "images" / "train").mkdir(parents=True, exist_ok=True)
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(root / "images" / "train" / "a.png")
    if rows is not None:
        text = rows if isinstance(rows, bytes) else rows.encode()
        (root / "labels" / "train" / "a.txt").write_bytes(text)
    yaml = "".join(f"{key}: {value}\n" for key, value in {"train": "images/train", "names": names, **more}.items())
    (root / "data.yaml").write_text(yaml, encoding="utf-8")
    return root


def read(root, **options):
    return find_split(root, "train").read(**options)


def test_a_row_is_class_centre_and_size_in_shares(tmp_path):
    found = read(put(tmp_path, "1 0.5 0.5 0.25 0.5\n0 0.1 0.2 0.2 0.4\n"))
    assert found.labels.tolist() == [1, 0] and found.classes.names == ("cat", "dog")
    np.testing.assert_allclose(found.boxes, [[75, 25, 50, 50], [0, 0, 40, 40]], atol=1e-12)
    np.testing.assert_allclose(found.areas, [2500, 1600], atol=1e-9)
    assert found.heights.tolist() == [100] and found.widths.tolist() == [200]
    assert found.image_ids == found.file_names == ("a.png",) and not found.crowd.any() and found.notes == ()


def test_boxes_are_of_the_upright_image(tmp_path):
    put(tmp_path, "0 0.5 0.5 1 0.5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "train" / "a.png", exif=exif)
    found = read(tmp_path)
    assert (found.heights[0], found.widths[0]) == (200, 100)
    assert found.boxes.tolist() == [[0, 50, 100, 100]]


def test_of_a_polygon_the_box_around_it_is_taken(tmp_path):
    found = read(put(tmp_path, "0 0.1 0.2 0.5 0.2 0.3 0.8\n1 0.5 0.5 0.2 0.2\n0 0 0 .1 0 .1 .1 0 .1"))
    np.testing.assert_allclose(found.boxes, [[20, 20, 80, 60], [80, 40, 40, 20], [0, 0, 20, 10]], atol=1e-12)
    assert "2 rows are polygons; the box around each is taken" in found.notes


def test_of_key_points_only_the_box_is_taken(tmp_path):
    put(tmp_path, "1 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 0", kpt_shape="[2, 3]")
    np.testing.assert_allclose(read(tmp_path).boxes, [[80, 40, 40, 20]], atol=1e-12)
    put(tmp_path, "1 0.5 0.5 0.2 0.2", kpt_shape="[2, 3]")
    with pytest.raises(InputError, match=r"a\.txt:1: 5 columns; expected 11"):
        read(tmp_path)


def test_an_image_without_a_label_file_has_nothing_on_it(tmp_path):
    put(tmp_path, "0 .5 .5 .1 .1")
    Image.new("RGB", (10, 10)).save(tmp_path / "images" / "train" / "b.jpg")
    found = read(tmp_path)
    assert found.file_names == ("a.png", "b.jpg") and found.image_indices.tolist() == [0]
    assert "1 of 2 images have no label file: nothing is on them" in found.notes
    (tmp_path / "labels" / "train" / "b.txt").write_text("\n  \n")
    assert not any("label file" in note for note in read(tmp_path).notes)


def test_a_set_without_any_label_file_is_refused(tmp_path):
    put(tmp_path, None)
    with pytest.raises(UsageError, match=r"none of 1 image has a label file; looked for .*labels/train/a\.txt first"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 .5 .5 .1 .1", r"class 2 is none of the 2 in names \(0, 1\)"),
        ("-1 .5 .5 .1 .1", "class -1 is none of the 2"),
        ("0.5 .5 .5 .1 .1", "class 0.5 is none of the 2"),
        ("cat .5 .5 .1 .1", "'cat' is not a number"),
        ("0 .5 .5 .1 x", "'x' is not a number"),
        ("0 .5 .5 .1 nan", "'nan' is not a number"),
        ("0 .5 .5 .1 inf", "'inf' is not a number"),
        ("0 .5 .5 .1", "4 columns; expected class, cx, cy, w, h"),
        ("0 .5 .5 .1 .1 .9", "6 columns; expected class, cx, cy, w, h.*without --save-conf"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "8 columns"),
        ("0 120 50 30 30", "120 is outside of the image; expected shares of it, from 0 to 1; pixels?"),
        ("0 .5 1.2 .1 .1", "1.2 is outside of the image; expected shares of it, from 0 to 1$"),
        ("0 .5 .5 -.1 .1", "-.1 is outside of the image"),
        (b"0 .5 .5 .1 .1 \xff", "not text in UTF-8"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(tmp_path, row, message):
    rows = row if isinstance(row, bytes) else f"0 .5 .5 .1 .1\n\n{row}\n"
    with pytest.raises(InputError, match=message) as caught:
        read(put(tmp_path, rows))
    place = "a.txt: " if isinstance(row, bytes) else "a.txt:3: "
    assert f"1 label row is wrong: {tmp_path}/labels/train/{place}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rounding_may_put_a_value_a_hundredth_outside_of_the_image(tmp_path):
    found = read(put(tmp_path, "0 1.01 -0.01 1 1"))
    np.testing.assert_allclose(found.boxes, [[102, -51, 200, 100]], atol=1e-9)  # clipped by who needs pixels
    for row in ("0 1.011 .5 1 1", "0 .5 -0.011 1 1"):
        with pytest.raises(InputError, match="is outside of the image"):
            read(put(tmp_path, row))


def test_all_wrong_rows_are_counted(tmp_path):
    with pytest.raises(InputError, match=r"5 label rows are wrong: .*a\.txt:1: .*a\.txt:2: .*a\.txt:3: 1 column;"):
        read(put(tmp_path, "5 .5 .5 .1 .1\n" * 2 + "5\n" + "5 .5 .5 .1 .1\n" * 2))


def test_windows_line_ends_a_byte_order_mark_and_numbers_like_1_0_are_read(tmp_path):
    found = read(put(tmp_path, b"\xef\xbb\xbf1.0 .5 .5 .1 .1\r\n0\t.5  .5 1e-1 .1\r\n"))
    assert found.labels.tolist() == [1, 0]


def test_a_flat_box_is_left_out_with_its_line_and_many_are_refused(tmp_path):
    rows = "0 .5 .5 .1 .1\n" * 40
    found = read(put(tmp_path, rows + "0 .5 .5 0 .1\n"))
    assert len(found.boxes) == 40 and "1 of 41 boxes have no width or height" in found.notes[0]
    assert "a.txt:41 [100, 45, 0, 10]; left out" in found.notes[0]
    with pytest.raises(InputError, match="no width or height"):
        read(tmp_path, strict=True)


def test_boxes_of_an_image_that_cannot_be_read_are_left_out(tmp_path):
    put(tmp_path, "0 .5 .5 .1 .1")
    (tmp_path / "images" / "train" / "a.png").write_bytes(b"<html>")
    found = read(tmp_path)
    assert len(found.boxes) == 0 and "1 image cannot be read; the boxes are left out" in found.notes


rows = st.lists(
    st.lists(st.one_of(st.sampled_from(["0", "1", "2", ".5", "1e-400", "1e400", "-0", "nan"]), st.text(max_size=4)))
).map(lambda lines: "\n".join(" ".join(words) for words in lines).encode("utf-8", "surrogatepass"))


@given(st.one_of(rows, st.binary()))
@example(b"0 0.5 0.5 1e-320 1")
@settings(max_examples=60, deadline=None)
def test_whatever_a_label_file_holds_is_read_or_refused_in_one_line(text):
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = read(put(Path(folder), text))
        except InputError as problem:
            assert "\n" not in str(problem)
        else:
            assert np.isfinite(found.boxes).all() and (found.boxes[:, 2:] > 0).all()
