import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as pycoco_mask

from detr.classes import COCO, Classes
from detr.data.coco import CocoDataset, clipped, read_annotations
from detr.data.outlines import box_of_outline
from detr.errors import InputError, UsageError


def box(id=1, image=1, category=1, bbox=(1, 2, 3, 4), **extra):
    return {"id": id, "image_id": image, "category_id": category, "bbox": list(bbox), "area": 5, "iscrowd": 0, **extra}


def tree(annotations=(), images=None, categories=None):
    return {
        "images": images or [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in (1, 2, 3)],
        "annotations": list(annotations),
        "categories": categories or [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture
def read(tmp_path):
    def reading(content, **options):
        file = tmp_path / "instances.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return read_annotations(file, **options)

    return reading


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_everything_stands_in_file_order(read):
    rows = [box(7, image=3, bbox=(0.5, 1, 2, 3)), box(5, image=1, category=2, iscrowd=1), box(6, image=3)]
    found = read(tree(rows))
    assert found.image_ids == (1, 2, 3) and found.file_names == ("1.png", "2.png", "3.png")
    assert found.image_indices.tolist() == [2, 0, 2]
    assert found.labels.tolist() == [0, 1, 0]
    assert found.boxes.tolist() == [[0.5, 1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert found.areas.tolist() == [5, 5, 5]
    assert found.crowd.tolist() == [False, True, False]
    assert found.heights.tolist() == [10, 10, 10] and found.widths.tolist() == [20, 20, 20]
    assert found.counts().tolist() == [2, 0]
    assert found.notes == ("1 of 2 classes have no boxes: dog",)


def test_no_annotations_are_fine(read):
    found = read(tree())
    assert found.boxes.shape == (0, 4) and found.labels.shape == (0,) and found.counts().tolist() == [0, 0]


def test_classes_are_in_the_order_of_their_ids(read):
    categories = [{"id": 90, "name": "z"}, {"id": 0, "name": "n"}, {"id": 7, "name": "s"}]
    found = read(tree([box(1, category=90), box(2, category=0)], categories=categories))
    assert found.classes == Classes((0, 7, 90), ("n", "s", "z"))
    assert found.labels.tolist() == [2, 0]


def test_ids_of_coco_give_its_80_indices(read):
    rows = COCO.to_json()
    found = read(tree([box(i, category=row["id"]) for i, row in enumerate(rows)], categories=rows[::-1]))
    assert found.classes == COCO
    assert found.labels.tolist() == list(range(80))


def test_ids_may_be_text_huge_negative_zero_or_whole_floats(read):
    images = [{"id": id, "file_name": str(i)} for i, id in enumerate(["a", 2**60, 2**60 + 1, -5, 0, 7.0])]
    rows = [box(i, image=row["id"], category="c") for i, row in enumerate(images)]
    found = read(tree(rows, images=images, categories=[{"id": "c", "name": "c"}]))
    assert found.image_ids == ("a", 2**60, 2**60 + 1, -5, 0, 7)
    assert found.image_indices.tolist() == list(range(6))
    assert found.classes.ids == ("c",)


def test_what_may_be_missing(read):
    row = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    found = read(tree([row, row], images=[{"id": 1, "file_name": "a.jpg"}]))
    assert found.areas.tolist() == [12, 12]
    assert found.crowd.tolist() == [False, False]
    assert found.heights.tolist() == [0]
    assert "2 annotations have no area" in found.notes[0]


def test_ignore_is_ignored_as_in_cocos_own_evaluator(read):
    assert not read(tree([box(ignore=1)])).crowd.any()


def test_boxes_without_area_are_dropped_with_their_count(read):
    rows = [box(i) for i in range(40)] + [box(98, bbox=(1, 2, 0, 4)), box(99, bbox=(1, 2, 3, -4))]
    found = read(tree(rows))
    assert len(found.boxes) == 40
    assert "2 of 42 boxes have no width or height; first: annotations[40] [1, 2, 0, 4]" in found.notes[0]
    with pytest.raises(InputError, match="2 of 42 boxes"):
        read(tree(rows), strict=True)
    with pytest.raises(InputError, match="2 of 3 boxes"):
        read(tree([*rows[-2:], box(0)]))


def test_boxes_outside_of_the_image_stay_as_they_are(read):
    assert read(tree([box(bbox=(-5, -5, 1000, 1000))])).boxes.tolist() == [[-5, -5, 1000, 1000]]


WRONG = [
    ('{"images": [,]}', r"instances\.json:1:13: not valid JSON"),
    ("", r":1:1: not valid JSON"),
    ('{"images": [{"id": 1,\n "segmentation": [[1, 2]], "id": }]}', r":2:34: not valid JSON"),
    ("[" * 100_000, "nested too deeply"),
    ("1" * 5000, "not valid JSON"),
    ("[1, 2]", "expected an object with images, annotations and categories; a list of detections"),
    ("null", "expected an object"),
    ({"images": [], "categories": []}, "no 'annotations' in this annotation file; it has images, categories"),
    ({"image": [], "annotations": [], "categories": []}, "no 'images' .*did you mean 'image'"),
    ({"images": [], "annotations": [], "categories": []}, "lists 0 images"),
    ({**tree(), "categories": []}, "lists 0 categories"),
    ({**tree(), "annotations": {}}, "'annotations' is dict; expected a list"),
    ({**tree(), "annotations": [3]}, r"annotations\[0\] is int; expected an object"),
    (tree(images=[{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]), r"1 row of images repeats an id; first"),
    (tree(images=[{"file_name": "a"}]), r"images\[0\] has id None"),
    (tree(images=[{"id": [1], "file_name": "a"}]), r"images\[0\] has id \[1\]"),
    (tree(images=[{"id": True, "file_name": "a"}]), r"images\[0\] has id True"),
    (tree(images=[{"id": 1.5, "file_name": "a"}]), r"images\[0\] has id 1.5"),
    (tree(images=[{"id": 1}]), r"images\[0\] has file_name None"),
    (tree(images=[{"id": 1, "file_name": "a", "width": -3}]), r"images\[0\] has width -3"),
    (tree(images=[{"id": 1, "file_name": "a", "height": "9"}]), r"images\[0\] has height '9'"),
    (tree([box(4), box(None), box(None), box(4)]), r"1 row of annotations repeats an id; .*id 4 at .*\[0\] and \[3\]$"),
    (tree([box(1.5)]), r"annotations\[0\] has id 1.5"),
    (tree(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "1 row of categories repeats an id"),
    (tree(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]),
     r"categories\[0\] and \[1\] have one name, 'a'"),
    (tree(categories=[{"id": 1}]), r"categories\[0\] has name None"),
    (tree([box(1, image=9), box(2, image=8)]),
     r"image_id of 2 annotations is none of the 3 images; annotations\[0\] has 9"),
    (tree([box(image="1")]), "text, where the ids are numbers"),
    (tree([box(category=9)]), r"category_id of 1 annotation is none of the 2 categories"),
    (tree([{"id": 1, "bbox": [1, 2, 3, 4]}]), "image_id of 1 annotation is"),
    (tree([box(image=[1])]), r"annotations\[0\] has id \[1\]"),
    (tree([box(1), box(2, category=True)]), r"annotations\[1\] has id True"),
    (tree([box(bbox=(True, 2, 3, 4))]), r"has \[True, 2, 3, 4\]"),
    (tree([box(bbox=(1, 2, 3))]), r"no bbox of four finite numbers; first: annotations\[0\] \(id 1\) has \[1, 2, 3\]"),
    (tree([box(1), box(2, bbox=(1, 2, 3))]), r"1 annotation has no bbox"),
    (tree([box(1), {**box(2), "bbox": None}]), r"annotations\[1\] \(id 2\) has None"),
    (tree([box(bbox=("1", "2", "3", "4"))]), "has \\['1', '2'"),
    (tree([box(bbox=(1, 2, float("nan"), 4))]), r"\[1, 2, nan, 4\]"),
    (tree([box(bbox=(1, 2, float("inf"), 4))]), r"\[1, 2, inf, 4\]"),
    (tree([box(bbox=(1, 2, 10**400, 4))]), "no bbox of four finite numbers"),
    (tree([{**box(), "bbox": {"x": 1}}]), "no bbox of four finite numbers"),
    (tree([{**box(), "bbox": None, "segmentation": [[1, 2]]}]), r"annotations\[0\] has no bbox, and its segmentation"),
    (tree([box(area="big")]) , r"annotations\[0\] has area 'big'"),
    (tree([{**box(), "area": float("nan")}]), "has area nan"),
    (tree([{**box(), "area": -1}]), "has area -1"),
    (tree([{**box(), "iscrowd": "yes"}]), "has iscrowd 'yes'"),
    (tree([{**box(), "iscrowd": [1]}]), r"has iscrowd \[1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_file_is_refused_in_one_line_that_says_where(read, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_anything_in_any_place_is_read_or_refused_in_one_line(read, data):
    content = tree([box(1, image=1), box(2, image=2, category=2), {**box(3), "segmentation": [[0, 0, 1, 1, 2, 5]]}])
    place = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    if data.draw(st.booleans()):
        row = data.draw(st.sampled_from(content[place]))
        row[data.draw(st.sampled_from([*row, "bbox", "segmentation", "supercategory"]))] = data.draw(anything)
    else:
        content[place] = data.draw(anything)
    try:
        found = read(content)
    except InputError as refused:
        assert "\n" not in str(refused)
    else:
        assert len(found.boxes) == len(found.labels) == len(found.areas) == len(found.crowd)
        assert np.isfinite(found.boxes).all() and np.isfinite(found.areas).all()


def test_an_outline_without_a_box_gives_the_box_around_it(read):
    rows = [box(1), {**box(2), "bbox": None, "segmentation": [[1, 2, 9, 4, 3, 8], [0, 3, 1, 4, 2, 5]]}]
    del rows[1]["bbox"]
    found = read(tree(rows))
    assert found.boxes[1].tolist() == [0, 2, 9, 6]
    assert found.notes[0].startswith("1 annotation has an outline but no box")


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_masks_agree_with_pycocotools(seed):
    random = np.random.default_rng(seed)
    mask = np.zeros((17, 23), np.uint8, order="F")
    y, x = random.integers(0, 15), random.integers(0, 20)
    mask[y : y + random.integers(1, 9), x : x + random.integers(1, 9)] = random.random() < 2
    if seed % 2:
        mask &= (random.random(mask.shape) < 0.7).astype(np.uint8)
    if not mask.any():
        mask[3, 4] = 1
    packed = pycoco_mask.encode(mask)
    text = {"size": packed["size"], "counts": packed["counts"].decode()}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    rows, columns = np.nonzero(mask)
    exact = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    # pycocotools' own box spans the full height wherever a run goes on in the next column, and so does ours.
    assert box_of_outline(text, "") == pycoco_mask.toBbox(packed).tolist()
    assert box_of_outline({"size": [17, 23], "counts": counts}, "") == box_of_outline(text, "")
    assert box_of_outline(text, "")[0::2] == exact[0::2]


def test_a_mask_of_another_size_than_its_image_is_refused(read):
    row = {**box(1), "segmentation": {"size": [3, 5], "counts": [0, 10, 5]}}
    del row["bbox"]
    with pytest.raises(
        InputError, match=r"annotations\[0\] has no bbox, and a mask of \[3, 5\] where its image has \["
    ):
        read(tree([row]))
    unknown = tree([row])
    for image in unknown["images"]:
        image["height"] = image["width"] = 0
    assert read(unknown).boxes.tolist() == [[0, 0, 4, 3]]


@pytest.mark.parametrize("counts", ["", "~~~~", "0000", [1, 2], [-1, 5], None, "oooooooooooooooooo", [4, 6.0]])
def test_run_lengths_that_do_not_fill_the_mask_are_refused(counts):
    with pytest.raises(InputError, match=r"^a\.json: annotations\[3\] has no bbox, and the run lengths"):
        box_of_outline({"size": [2, 5], "counts": counts}, "a.json: annotations[3]")


def test_a_heading_that_has_no_boxes_is_not_a_class(read):
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    found = read(tree([box(1, category=2)], categories=categories))
    assert found.classes.names == ("cat", "dog") and found.labels.tolist() == [1]
    assert "category 0 'pets' has no boxes" in found.notes[0]
    used = read(tree([box(1, category=0)], categories=categories))
    assert used.classes.names == ("pets", "cat", "dog") and used.labels.tolist() == [0]


def test_categories_without_boxes_stay(read):
    assert len(read(tree([box()])).classes) == 2


def test_given_classes_are_matched_by_name(read):
    contract = Classes((10, 11, 12), ("dog", "bird", "Cat"))
    found = read(tree([box(1, category=1), box(2, category=2)]), classes=contract)
    assert found.classes.names == contract.names
    assert found.labels.tolist() == [2, 0]
    assert found.classes.ids[0] == 2 and found.classes.ids[2] == 1  # of this file: results are written in its terms
    with pytest.raises(InputError, match=r"1 categories with boxes are none of the 1 expected classes .*first: 'dog'"):
        read(tree([box(1, category=2)]), classes=Classes.from_names(["cat"]))
    assert read(tree([box(1, category=1)]), classes=Classes.from_names(["cat"])).labels.tolist() == [0]


def test_the_same_classes_keep_their_ids(read):
    own = read(tree([box()])).classes
    assert read(tree([box()]), classes=own).classes == own


def test_crowds_alone_are_worth_a_note(read):
    assert any("all annotations are crowds" in note for note in read(tree([box(iscrowd=1)])).notes)


def test_a_file_listed_twice_is_worth_a_note(read):
    images = [{"id": id, "file_name": "a.png"} for id in (1, 2)]
    assert read(tree(images=images)).notes == ("1 image has the file name of another one",)


def test_the_dataset_clips_and_leaves_out_crowds(read, pictures):
    rows = [
        box(1, image=2, bbox=(-5, 5, 10, 100)),
        box(2, image=2, iscrowd=1),
        box(3, image=2, category=2, bbox=(50, 50, 5, 5)),
        box(4, image=3, category=2, bbox=(1, 1, 2, 2)),
    ]
    dataset = CocoDataset(read(tree(rows)), pictures)
    assert len(dataset) == 3
    assert len(dataset[0].labels) == 0 and dataset[0].boxes.shape == (0, 4)
    sample = dataset[1]
    assert sample.boxes.tolist() == [[0, 5, 5, 10]] and sample.labels.tolist() == [0]
    assert sample.image_id == 2 and sample.size == (10, 20)
    assert sample.image.shape == (3, 10, 20) and sample.image[0, 0, 0] == 2
    assert dataset[2].labels.tolist() == [1]
    assert dataset.notes() == [
        "1 box reaches over the edge of the image, clipped for training",
        "1 box lies outside of the image, left out of training",
    ]


def test_clipping_leaves_inner_boxes_alone():
    inner = np.array([[1.0, 2, 3, 4]])
    corners, kept = clipped(inner, 10, 10)
    assert corners.tolist() == [[1, 2, 4, 6]] and kept.all()


def test_missing_images_are_counted_and_named_at_once(read, pictures):
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(1, 12)]
    with pytest.raises(InputError, match=r"8 images are missing in .*: 4.png, 5.png, 6.png, 7.png, 8.png and 3 more"):
        CocoDataset(read(tree(images=images)), pictures)


def test_what_is_no_file_is_missing_and_not_waited_for(read, pictures):
    os.mkfifo(pictures / "8.png")
    (pictures / "9.png").mkdir()
    images = [{"id": i, "file_name": f"{i}.png"} for i in (1, 8, 9)]
    with pytest.raises(InputError, match=r"2 images are missing in .*: 8.png, 9.png"):
        CocoDataset(read(tree(images=images)), pictures)


@pytest.mark.parametrize(
    "name", ["../1.png", "a/../../1.png", "/etc/passwd", "1.png\0", "C:\\1.png", "..\\1.png", "\\\\server\\1.png", "."]
)
def test_a_file_name_cannot_leave_the_image_folder(read, pictures, name):
    with pytest.raises(InputError, match="leaves the image folder"):
        CocoDataset(read(tree(images=[{"id": 1, "file_name": name}])), pictures)


def test_a_link_cannot_leave_the_image_folder(read, pictures, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (4, 4)).save(outside / "secret.png")
    os.symlink(outside / "secret.png", pictures / "link.png")
    os.symlink(outside, pictures / "folder")
    os.symlink(pictures / "1.png", pictures / "fine.png")
    for name in ("link.png", "folder/secret.png"):
        with pytest.raises(InputError, match="outside of the image folder"):
            CocoDataset(read(tree(images=[{"id": 1, "file_name": name}])), pictures)
    CocoDataset(read(tree(images=[{"id": 1, "file_name": "fine.png"}])), pictures)


def test_windows_separators_are_understood(read, pictures):
    (pictures / "sub").mkdir()
    Image.new("RGB", (20, 10)).save(pictures / "sub" / "4.png")
    assert CocoDataset(read(tree(images=[{"id": 1, "file_name": "sub\\4.png"}])), pictures)[0].size == (10, 20)


@pytest.mark.parametrize("case", ["missing", "empty", "file"])
def test_an_image_folder_without_images_is_a_usage_error(read, tmp_path, case):
    folder: Path = tmp_path / "nothing"
    if case == "empty":
        folder.mkdir()
    if case == "file":
        folder.write_text("")
    with pytest.raises(UsageError, match="image folder"):
        CocoDataset(read(tree()), folder)


def test_a_damaged_image_is_named(read, pictures):
    (pictures / "2.png").write_bytes((pictures / "2.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"2\.png"):
        CocoDataset(read(tree()), pictures)[1]


def test_another_size_than_said_is_taken_from_the_image_and_said_once(read, pictures):
    images = [{"id": i, "file_name": f"{i}.png", "width": 99, "height": 10} for i in (1, 2)]
    dataset = CocoDataset(read(tree(images=images)), pictures)
    with pytest.warns(UserWarning, match="is 20 x 10 pixels but the annotation file says 99 x 10"):
        assert dataset[0].size == (10, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset[1]


def test_boxes_are_in_the_frame_of_the_upright_image(read, pictures):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(pictures / "1.png", exif=exif)
    images = [{"id": 1, "file_name": "1.png", "width": 10, "height": 20}]
    sample = CocoDataset(read(tree([box(bbox=(0, 0, 10, 20))], images=images)), pictures)[0]
    assert sample.size == (20, 10) and sample.boxes.tolist() == [[0, 0, 10, 20]]
