import json

import pytest
from PIL import Image

from detr.data.coco_layout import CocoSource
from detr.data.sources import find_split, find_splits
from detr.errors import UsageError


def put(root, annotations, images, name="a.png"):
    """An annotation file and its one image."""
    file, folder = root / annotations, root / images
    file.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / name)
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": []}))
    return CocoSource(file, folder)


@pytest.mark.parametrize(
    ("train", "train_images", "val", "val_images"),
    [
        ("annotations/instances_train2017.json", "train2017", "annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_train.json", "images/train", "annotations/instances_val.json", "images/val"),
        ("annotations/instances_train2017.json", "images/train2017",
         "annotations/instances_val2017.json", "images/val2017"),
        ("annotations/train.json", "train/images", "annotations/valid.json", "valid/images"),
        ("annotations/train.json", "images", "annotations/val.json", "images"),
        ("instances_train2017_128.json", "images", "instances_val2017_128.json", "images"),
        ("instances_train.json", "Some/JPEGImages", "instances_val.json", "Some/JPEGImages"),
        ("train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"),
    ],
)  # fmt: skip
def test_the_usual_layouts_are_found(tmp_path, train, train_images, val, val_images):
    wanted = {"train": put(tmp_path, train, train_images, "t.png"), "val": put(tmp_path, val, val_images, "v.png")}
    put(tmp_path, "annotations/captions_train2017.json", "other")
    put(tmp_path, "annotations/instances_trainval.json", "other")
    put(tmp_path, "annotations/instances_video.json", "other")
    for name in ("captions_train2017", "instances_trainval", "instances_video"):
        if not train.startswith("annotations"):
            (tmp_path / "annotations" / f"{name}.json").unlink()
    assert find_splits(tmp_path) == wanted
    assert find_split(tmp_path, "val") == wanted["val"]


def test_of_several_folders_the_one_with_the_first_image_is_taken(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "other.png").write_text("")
    source = put(tmp_path, "annotations/instances_train.json", "images")
    assert find_splits(tmp_path) == {"train": source}


def test_a_single_file_is_both_splits(tmp_path):
    source = put(tmp_path, "boxes.json", "pictures")
    assert find_splits(source.annotations) == {"train": source, "val": source}
    elsewhere = CocoSource(source.annotations, tmp_path)
    assert find_splits(source.annotations, images=tmp_path)["val"] == elsewhere
    assert find_splits(put(tmp_path, "annotations/instances_val.json", "images/val").annotations)["val"].images == (
        tmp_path / "images" / "val"
    )


def test_a_yaml_names_the_files(tmp_path):
    train, val = put(tmp_path, "x/a.json", "x/pictures"), put(tmp_path, "y/b.json", "y")
    file = tmp_path / "set.yaml"
    file.write_text("train: {annotations: x/a.json, images: x/pictures}\nval: {annotations: y/b.json}\n")
    assert find_splits(file) == {"train": train, "val": val}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {annotations: no.json}", "train.annotations is .*no.json: no such file"),
        ("trian: {annotations: a.json}", "did you mean 'train'"),
        ("{}", "names no split"),
        ("download: 'import os'", "download is not a setting"),
        ("path: ../x\ntrain: images\nnames: [a]", "path is '../x': no such folder"),
        ("train: images\nnames: [a]", "train is .images.: no such file or folder"),
        ("train: !!python/object:os.system {}", "not readable as YAML"),
    ],
)
def test_a_wrong_yaml_is_refused(tmp_path, text, message):
    file = tmp_path / "set.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        find_splits(file)


def test_a_near_name_is_offered(tmp_path):
    (tmp_path / "shapes").mkdir()
    with pytest.raises(UsageError, match="did you mean 'shapes'"):
        find_splits(tmp_path / "shape")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="expected a folder, an annotation file"):
        find_splits(tmp_path / "notes.txt")


def test_annotations_without_their_images_are_refused(tmp_path):
    source = put(tmp_path, "annotations/instances_train.json", "images/train")
    (source.images / "a.png").unlink()
    with pytest.raises(UsageError, match=r"no image folder for .*its image 'a\.png' is in none of"):
        find_splits(tmp_path)


def test_a_first_image_that_is_missing_does_not_hide_the_folder_of_the_others(tmp_path):
    source = put(tmp_path, "annotations/instances_train.json", "images/train")
    tree = json.loads(source.annotations.read_text())
    tree["images"].insert(0, {**tree["images"][0], "id": 77, "file_name": "gone.png"})
    source.annotations.write_text(json.dumps(tree))
    assert find_splits(tmp_path)["train"].images == source.images


def test_pictures_of_another_split_are_not_taken_though_they_have_the_same_names(tmp_path):
    put(tmp_path, "annotations/instances_train.json", "images/train")
    source = put(tmp_path, "annotations/instances_val.json", "images/val")
    (source.images / "a.png").unlink()
    with pytest.raises(UsageError, match=r"none of .*images/train has one, but is called as another split.*YAML"):
        find_splits(tmp_path)
    source.images.rmdir()
    with pytest.raises(UsageError, match="called as another split"):
        find_splits(source.annotations)
    assert find_splits(source.annotations, images=tmp_path / "images" / "train")


def test_two_files_for_one_split_are_refused(tmp_path):
    put(tmp_path, "annotations/instances_train2014.json", "train2014")
    put(tmp_path, "annotations/instances_train2017.json", "train2017")
    with pytest.raises(UsageError, match=r"several files for 'train'.*YAML"):
        find_splits(tmp_path)


def test_an_image_in_several_folders_asks_for_a_yaml(tmp_path):
    put(tmp_path, "boxes.json", "one")
    put(tmp_path, "boxes.json", "two")
    with pytest.raises(UsageError, match="is in several folders"):
        find_splits(tmp_path / "boxes.json")


def test_a_split_that_is_not_there_is_a_usage_error(tmp_path):
    put(tmp_path, "annotations/instances_train.json", "images/train")
    with pytest.raises(UsageError, match="no 'val' split; it has train"):
        find_split(tmp_path, "val")


def test_an_image_folder_goes_with_a_single_file_only(tmp_path):
    with pytest.raises(UsageError, match="goes with a single annotation file"):
        find_splits(tmp_path, images=tmp_path)
