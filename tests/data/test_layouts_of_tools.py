"""Folders as labelling tools write them, which name no splits in the usual way."""

import json

import pytest
from PIL import Image

from detr.data.sources import find_splits
from detr.errors import InputError, UsageError

XML = (
    "<annotation><object><name>cat</name><bndbox><xmin>6</xmin><ymin>3</ymin><xmax>15</xmax><ymax>8</ymax></bndbox>"
    "</object></annotation>"
)
ROW = "1 .5 .5 .5 .5\n"


def coco(file_name):
    return json.dumps(
        {
            "images": [{"id": 0, "file_name": file_name, "width": 20, "height": 10}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [5, 2.5, 10, 5]}],
            "categories": [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}],
        }
    )


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jpg"):
            Image.new("RGB", (20, 10)).save(path)
        else:
            path.write_text(text)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"annotations/instances_default.json": coco("a.jpg"), "images/a.jpg": ""}, id="CVAT"),
        pytest.param(
            {"annotations/instances_default.json": coco("a.jpg"), "images/default/a.jpg": ""}, id="CVAT's subset"
        ),
        pytest.param({"result.json": coco("images\\a.jpg"), "images/a.jpg": ""}, id="Label Studio"),
        pytest.param(
            {"result.json": coco("/data/local-files/?d=set%2Fsome%20a.jpg"), "set/some a.jpg": ""},
            id="Label Studio's local files",
        ),
        pytest.param(
            {"result.json": coco("/data/local-files/?d=team/set/a.jpg"), "images/set/a.jpg": ""},
            id="a part of Label Studio's local files",
        ),
        pytest.param(
            {"result.json": coco("/data/upload/1/1a2b3c4d-a.jpg"), "images/1a2b3c4d-a.jpg": ""},
            id="Label Studio's uploads",
        ),
        pytest.param(
            {"result.json": coco("http://localhost:8080/data/upload/1/1a2b3c4d-a.jpg"), "photos/a.jpg": ""},
            id="what was uploaded to Label Studio",
        ),
        pytest.param({"_annotations.coco.json": coco("a.jpg"), "a.jpg": ""}, id="COCO beside the images"),
        pytest.param(
            {"classes.txt": "dog\ncat\n\n", "notes.json": "{}", "images/a.jpg": "", "labels/a.txt": ROW},
            id="Label Studio's YOLO",
        ),
        pytest.param({"classes.txt": "dog\ncat\n", "a.jpg": "", "a.txt": ROW}, id="labelImg's YOLO"),
        pytest.param({"labels/classes.txt": "dog\ncat", "images/a.jpg": "", "labels/a.txt": ROW}, id="with its names"),
        pytest.param({"a.jpg": "", "a.xml": XML}, id="labelImg"),
        pytest.param({"images/a.jpg": "", "annotations/a.xml": XML}, id="annotations"),
        pytest.param({"images/a.jpg": "", "annotations/xmls/a.xml": XML}, id="xmls"),
    ],
)
def test_a_set_without_splits_is_both(tmp_path, files):
    write(tmp_path, files)
    splits = find_splits(tmp_path)
    assert list(splits) == ["train", "val"] and splits["train"] == splits["val"]
    read = splits["train"].read()
    assert read.boxes.tolist() == [[5, 2.5, 10, 5]] or read.boxes.tolist() == [[5, 2, 10, 6]]
    assert read.classes.names[read.labels[0]] == "cat"
    assert (splits["train"].images / read.file_names[0].replace("\\", "/")).is_file()


@pytest.mark.parametrize(
    ("form", "splits"),
    [
        ({"annotations/instances_{}.json": coco("a.jpg"), "images/{}/a.jpg": ""}, ["Train", "Validation", "Test"]),
        ({"{}/annotations/instances_default.json": coco("a.jpg"), "{}/images/a.jpg": ""}, ["train", "val", "test"]),
        ({"{}/labels.json": coco("a.jpg"), "{}/a.jpg": ""}, ["training", "validation", "testing"]),
        ({"obj.names": "dog\ncat\n", "obj_{}_data/a.jpg": "", "obj_{}_data/a.txt": ROW}, ["train", "valid", "test"]),
        ({"classes.txt": "dog\ncat", "images/{}/a.jpg": "", "labels/{}/a.txt": ROW}, ["train2017", "val2017", "test"]),
        ({"classes.txt": "dog\ncat", "{}/images/a.jpg": "", "{}/labels/a.txt": ROW}, ["train", "valid", "test"]),
        ({"{}/images/a.jpg": "", "{}/annotations/a.xml": XML}, ["train", "val", "test"]),
    ],
)
def test_the_splits_of_tools_are_found_by_their_names(tmp_path, form, splits):
    for split in splits:
        write(tmp_path, {name.format(split): text for name, text in form.items()})
    found = find_splits(tmp_path)
    assert list(found) == ["train", "val", "test"]
    assert all(len(source.read().boxes) == 1 and (source.images / "a.jpg").is_file() for source in found.values())


def test_two_images_that_would_be_one_file_are_refused(tmp_path):
    tree = json.loads(coco("/data/local-files/?d=x%2Fa.jpg"))
    tree["images"].append({**tree["images"][0], "id": 1, "file_name": "/data/local-files/?d=y%2Fa.jpg"})
    write(tmp_path, {"result.json": json.dumps(tree), "images/a.jpg": ""})
    with pytest.raises(InputError, match=r"x%2Fa\.jpg' and .*y%2Fa\.jpg' would both be a\.jpg in .*images"):
        find_splits(tmp_path)["train"].read()
    (tmp_path / "images" / "a.jpg").unlink()
    write(tmp_path, {"images/x/a.jpg": "", "images/y/a.jpg": ""})
    assert find_splits(tmp_path)["train"].read().file_names == ("x/a.jpg", "y/a.jpg")


def test_two_folders_for_one_split_are_refused(tmp_path):
    for split in ("val", "valid"):
        write(tmp_path, {f"{split}/_annotations.coco.json": coco("a.jpg"), f"{split}/a.jpg": ""})
    with pytest.raises(UsageError, match="two folders for 'val': val and valid"):
        find_splits(tmp_path)


def test_the_only_yaml_is_taken_whatever_its_name(tmp_path):
    write(tmp_path, {"images/a.jpg": "", "labels/a.txt": ROW, "coco8.yaml": "train: images\nnames: [dog, cat]\n"})
    write(tmp_path, {"compose.yml": "services: {}\n"})
    assert find_splits(tmp_path) == find_splits(tmp_path / "coco8.yaml")


@pytest.mark.parametrize("train", ["images", "/content/SET/images", "SET/images", "../images"])
@pytest.mark.parametrize("path", ["", "path: ../datasets/SET\n", "path: C:\\\\data\\\\SET\n"])
def test_a_yaml_that_was_moved_with_its_set_is_understood(tmp_path, train, path):
    root = tmp_path / "coco8"
    write(root, {"images/a.jpg": "", "labels/a.txt": ROW})
    write(root, {"data.yaml": f"{path}train: {train.replace('SET', root.name)}\nnames: [dog, cat]\n"})
    read = find_splits(root)["train"].read()
    assert read.file_names == ("a.jpg",) and len(read.boxes) == 1
    assert ("is not here; the folder of data.yaml is taken" in " ".join(read.notes)) == bool(path)


def test_a_blank_line_among_names_is_refused_because_numbers_would_shift(tmp_path):
    write(tmp_path, {"classes.txt": "dog\n\ncat\n", "a.jpg": "", "a.txt": ROW})
    with pytest.raises(InputError, match=r"classes\.txt:2: expected a class name"):
        find_splits(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it is empty"),
        ({"a.jpg": "", "train.csv": "image_id,bbox"}, r"it has train\.csv, but tables are not read"),
        ({"a.jpg": "", "a.json": '{"shapes": []}'}, r"it has a\.json, but not as COCO or Pascal VOC have it"),
        ({"a.jpg": "", "b/c.jpg": ""}, "it has 2 images, but nothing that says what is on them"),
        ({"a.jpg": "", "a.txt": ROW}, "it has YOLO's labels, but no data.yaml or classes.txt"),
        ({"task.zip": ""}, r"it has task\.zip: unpack"),
        ({"readme.md": ""}, r"it has readme\.md, neither images nor annotations"),
        ({"one.json": coco("a"), "two.json": coco("a")}, r"2 annotation files \(one\.json, two\.json\); say in a YAML"),
        ({"a.yaml": "train: x\n", "b.yaml": "train: y\n"}, r"it has a\.yaml, b\.yaml: give the one that describes it"),
    ],
)
def test_what_is_there_instead_is_named(tmp_path, files, message):
    write(tmp_path, files)
    with pytest.raises(UsageError, match=rf"{message}.*Looked for COCO: .*YOLO: .*Pascal VOC: ") as caught:
        find_splits(tmp_path)
    assert "\n" not in str(caught.value)
