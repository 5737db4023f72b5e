import errno
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detr.data.conversion import convert
from detr.data.sources import find_splits
from detr.errors import InputError, UsageError

SIZE = (64, 48)


def write_coco(root, splits, categories):
    """splits: name -> list of (file name, [(category id, bbox), ...])"""
    (root / "annotations").mkdir(parents=True)
    for split, images in splits.items():
        rows, annotations = [], []
        for number, (name, boxes) in enumerate(images, 1):
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE).save(path)
            rows.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            for id, box, *crowd in boxes:
                row = {"id": len(annotations) + 1, "image_id": number, "category_id": id, "bbox": list(box), "area": 9}
                annotations.append({**row, "iscrowd": int(bool(crowd))})
        tree = {"images": rows, "annotations": annotations}
        tree["categories"] = [{"id": id, "name": name} for id, name in categories]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(tree))
    return root


def things(data):
    """split -> image number -> (class name, corners) in the order of the file."""
    found = {}
    for split, source in find_splits(data).items():
        read = source.read()
        images = [[] for _ in read.file_names]
        for image, label, (x, y, w, h) in zip(read.image_indices, read.labels, read.boxes.tolist(), strict=True):
            images[image].append((read.classes.names[label], (x, y, x + w, y + h)))
        found[split] = (read.classes.names, images)
    return found


def require_same(before, after, within):
    assert list(before) == list(after)
    for split in before:
        assert before[split][0] == after[split][0]
        for ours, theirs in zip(before[split][1], after[split][1], strict=True):
            assert [name for name, _ in ours] == [name for name, _ in theirs]
            for (_, corners), (_, new) in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(new, corners, atol=within, rtol=0)


CATEGORIES = [(7, "traffic light"), (0, "Größe"), (90, "a, b: 'c' \"d\" & <e>")]
SPLITS = {
    "train": [
        ("a.png", [(90, (0, 0, 64, 48)), (7, (10.3, 5.7, 0.1, 20))]),
        ("b.png", []),
        ("c.png", [(0, (1, 2, 3, 4))]),
    ],
    "val": [("a.png", [(7, (63.2, 40.5, 0.8, 7.5))])],
}


def test_coco_to_yolo_to_voc_to_coco_keeps_boxes_and_names(tmp_path):
    source = write_coco(tmp_path / "coco", SPLITS, CATEGORIES)
    way = source
    for step, to in enumerate(("yolo", "voc", "coco")):
        done = convert(way, to, tmp_path / f"{step}-{to}")
        way = tmp_path / f"{step}-{to}"
        assert done.images == {"train": 3, "val": 1} and done.boxes == {"train": 3, "val": 1}
        assert done.classes.names == ("Größe", "traffic light", CATEGORIES[2][1])
        require_same(things(source), things(way), 1e-6 if to == "yolo" else 0.5)
        assert things(way)["train"][1][1] == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=12).filter(
    lambda name: name.strip() == name
)
spans = st.tuples(st.integers(0, 990), st.integers(10, 1000)).map(lambda it: (it[0] / 1000, (it[0] + it[1]) / 1000))


@st.composite
def coco_sets(draw):
    """Any layout of ids: from 0, from 1, with gaps, in any order, used or not; boxes anywhere in the image."""
    ids = draw(st.lists(st.integers(0, 200), min_size=1, max_size=6, unique=True))
    known = draw(st.lists(names, min_size=len(ids), max_size=len(ids), unique=True))
    images = []
    for number in range(draw(st.integers(1, 3))):
        boxes = []
        for _ in range(draw(st.integers(0, 3))):
            (left, right), (top, bottom) = (draw(spans.filter(lambda span: span[1] <= 1)) for _ in range(2))
            box = (left * SIZE[0], top * SIZE[1], (right - left) * SIZE[0], (bottom - top) * SIZE[1])
            boxes.append((draw(st.sampled_from(ids)), box))
        images.append((f"{number}.png", boxes))
    return list(zip(ids, known, strict=True)), images


@given(coco_sets())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_classes_never_shift(drawn):
    categories, images = drawn
    with tempfile.TemporaryDirectory() as folder:
        way = source = write_coco(Path(folder) / "set", {"train": images}, categories)
        in_order = tuple(name for _, name in sorted(categories))
        for step, to in enumerate(("yolo", "voc", "coco", "voc", "yolo")):
            convert(way, to, Path(folder) / str(step))
            way = Path(folder) / str(step)
            assert things(way)["train"][0] == in_order
            # VOC's whole pixels are not rounded twice.
            require_same({"train": things(source)["train"]}, {"train": things(way)["train"]}, 0.5 + 1e-6)


def test_coco_keeps_ids_crowds_areas_and_boxes_over_the_edge(tmp_path):
    images = [("deep/a.png", [(7, (-5, 2, 20, 20)), (7, (3, 3, 9, 9), "crowd")])]
    source = write_coco(tmp_path / "set", {"train": images}, CATEGORIES)
    done = convert(source, "coco", tmp_path / "out")
    before, after = (find_splits(each)["train"].read() for each in (source, tmp_path / "out"))
    assert after.classes == before.classes and after.classes.ids == (0, 7, 90)
    assert after.image_ids == before.image_ids and after.file_names == ("deep/a.png",)
    assert after.boxes.tolist() == before.boxes.tolist() and after.areas.tolist() == [9, 9]
    assert after.crowd.tolist() == [False, True]
    assert done.notes == ("train: 2 of 3 classes have no boxes: Größe, " + CATEGORIES[2][1],)


def test_what_a_format_cannot_say_is_noted(tmp_path):
    boxes = [(1, (-5, 2, 20, 20)), (1, (70, 1, 5, 5)), (1, (3, 3, 9, 9), "crowd")]
    source = write_coco(tmp_path / "set", {"train": [("a.png", boxes)]}, [(1, "cat")])
    done = convert(source, "yolo", tmp_path / "yolo")
    [[(name, corners)]] = things(tmp_path / "yolo")["train"][1]
    assert done.boxes == {"train": 1} and name == "cat"
    np.testing.assert_allclose(corners, (0, 2, 15, 22), atol=1e-9)
    assert [note.split(": ")[1] for note in done.notes] == [
        "1 box reaches over the edge of the image, clipped",
        "1 box lies outside of the image, left out",
        "1 crowd left out, which the format can't say",
    ]
    convert(source, "voc", tmp_path / "voc")
    assert find_splits(tmp_path / "voc")["train"].read().crowd.tolist() == [False, True]


def test_images_are_linked_or_copied_and_get_names_of_their_own(tmp_path):
    images = [("x/a.png", [(1, (1, 1, 5, 5))]), ("y/a.png", []), ("y/a.jpg", []), ("x_a.png", []), (".h.png", [])]
    source = write_coco(tmp_path / "set", {"train": images, "val": images[:1]}, [(1, "cat")])
    convert(source, "yolo", tmp_path / "linked")
    convert(source, "voc", tmp_path / "copied", copy=True)
    linked = sorted(path.name for path in (tmp_path / "linked" / "images" / "train").iterdir())
    assert linked == ["_.h.png", "x_a.png", "x_a_2.png", "y_a.png", "y_a_2.jpg"]
    assert sorted(path.stem for path in (tmp_path / "linked" / "labels" / "train").iterdir()) == [
        "_.h", "x_a", "x_a_2", "y_a", "y_a_2"
    ]  # fmt: skip
    original = source / "train" / "x" / "a.png"
    assert os.path.samefile(tmp_path / "linked" / "images" / "train" / "x_a.png", original)
    copied = tmp_path / "copied" / "JPEGImages" / "x_a.png"
    assert not os.path.samefile(copied, original) and copied.read_bytes() == original.read_bytes()
    # Both splits share VOC's folder, and each finds its own.
    assert find_splits(tmp_path / "copied")["val"].read().file_names == ("x_a_3.png",)


def test_boxes_are_shares_of_the_image_itself_whatever_the_file_says(tmp_path):
    source = write_coco(tmp_path / "set", {"train": [("a.png", [(1, (32, 24, 32, 24))])]}, [(1, "cat")])
    file = source / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace('"width": 64', '"width": 640'))
    done = convert(source, "yolo", tmp_path / "yolo")
    assert "train: 1 image is not of the size that is said; the true one is written" in done.notes
    assert (tmp_path / "yolo" / "labels" / "train" / "a.txt").read_text() == "0 0.75 0.75 0.5 0.5\n"


def test_nothing_is_left_where_something_goes_wrong(tmp_path):
    source = write_coco(tmp_path / "set", {"train": [("a.png", []), ("b", [])][:1]}, [(1, "cat"), (2, " dog")])
    for to, error, message in (
        ("voc", InputError, "class name ' dog' can't be kept in XML"),
        ("yollo", UsageError, "expected one of coco, yolo, voc; did you mean 'yolo'"),
    ):
        with pytest.raises(error, match=message):
            convert(source, to, tmp_path / "out")
    (source / "train" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png: not an image"):
        convert(source, "coco", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_folder_that_holds_something_is_refused(tmp_path):
    source = write_coco(tmp_path / "set", {"train": [("a.png", [])]}, [(1, "cat")])
    (tmp_path / "out").mkdir()
    convert(source, "coco", tmp_path / "out")
    for out in (tmp_path / "out", source):
        with pytest.raises(UsageError, match="already holds something"):
            convert(source, "coco", out)
    with pytest.raises(UsageError, match="is a file"):
        convert(source, "coco", source / "train" / "a.png")


def test_a_single_file_is_one_split(tmp_path):
    source = write_coco(tmp_path / "set", {"train": [("a.png", [])]}, [(1, "cat")])
    file = source / "annotations" / "instances_train.json"
    assert convert(file, "yolo", tmp_path / "out", images=source / "train").images == {"train": 1}


def test_names_that_yaml_would_read_as_something_else_stay_names(tmp_path):
    odd = ["1", "1e3", "0x1f", "no", "true", "~", "null", "- a", "a: b", "#x", "'", '"', "\\", "\t\n\x7f", " a "]
    odd += ["\U0001f600", "\u200d", "a\u2028b", "\ufeff"]
    source = write_coco(tmp_path / "set", {"train": [("a.png", [])]}, list(enumerate(odd)))
    convert(source, "yolo", tmp_path / "out")
    text = "0 .5 .5 .1 .1\n"
    (tmp_path / "out" / "labels" / "train" / "a.txt").write_text(text)
    assert find_splits(tmp_path / "out")["train"].read().classes.names == tuple(odd)


def test_where_no_links_can_be_made_copies_are_offered(tmp_path, monkeypatch):
    def refused(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    source = write_coco(tmp_path / "set", {"train": [("a.png", [])]}, [(1, "cat")])
    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(UsageError, match=r"cannot link .*a\.png \(Invalid cross-device link\); copy .* with --copy"):
        convert(source, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert(source, "coco", tmp_path / "out", copy=True)


def test_a_validation_split_is_set_aside_with_its_share_of_each_class(tmp_path):
    images = [(f"{number}.png", [(7, (1, 1, 9, 9))] * (number % 2)) for number in range(40)]
    images += [(f"rare-{number}.png", [(7, (1, 1, 9, 9)), (90, (20, 20, 5, 5))]) for number in range(10)]
    data = write_coco(tmp_path / "in", {"train": images, "test": images[:3]}, CATEGORIES)
    whole = find_splits(data)["train"].read()
    done = convert(data, "coco", tmp_path / "out", val=0.2)
    assert done.images == {"train": 40, "val": 10, "test": 3}
    splits = {split: source.read(classes=whole.classes) for split, source in find_splits(tmp_path / "out").items()}
    train, val = splits["train"], splits["val"]
    assert sorted(train.file_names + val.file_names) == sorted(whole.file_names)
    assert val.counts().tolist() == [0, 6, 2] and (train.counts() + val.counts()).tolist() == whole.counts().tolist()
    convert(write_coco(tmp_path / "again", {"train": images[::-1]}, CATEGORIES), "yolo", tmp_path / "yolo", val=0.2)
    assert set(find_splits(tmp_path / "yolo")["val"].read().file_names) == set(val.file_names)


@pytest.mark.parametrize(
    ("splits", "share", "message"),
    [
        (SPLITS, 0.2, "this set has train, val"),
        ({"train": SPLITS["train"]}, 20, "a validation split of 20; expected a share"),
        ({"train": SPLITS["train"]}, 0.01, "0.01 of 3 images leave none for one of the splits"),
    ],
)
def test_a_validation_split_that_cannot_be_set_aside_is_refused(tmp_path, splits, share, message):
    with pytest.raises(InputError, match=message):
        convert(write_coco(tmp_path / "in", splits, CATEGORIES), "coco", tmp_path / "out", val=share)
    assert not (tmp_path / "out").exists()
