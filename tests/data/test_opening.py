import json
import tarfile

import pytest
from PIL import Image

from detr.data.coco_layout import CocoSource
from detr.data.conversion import convert
from detr.data.doctor import Plan, examine
from detr.data.opening import notes_for_training, open_for_training, open_split
from detr.errors import InputError, UsageError
from detr.image import InputConfig


def write(root, split, names=("a.jpg", "b.png"), category="cat", bbox=(0, 0, 5, 5)):
    (root / "images" / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (20, 10)).save(root / "images" / split / name)
    tree = {
        "images": [{"id": i, "file_name": name, "width": 20, "height": 10} for i, name in enumerate(names)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": bbox, "area": 25, "iscrowd": 0}],
        "categories": [{"id": 1, "name": category}],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(tree))


def test_both_sets_are_opened_with_the_same_classes(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "val")
    train_set, val_set = open_for_training(tmp_path)
    assert len(train_set) == len(val_set) == 2 and train_set.classes == val_set.classes
    assert notes_for_training(train_set, val_set) == []


def test_a_set_without_validation_is_fine_and_one_without_training_is_not(tmp_path):
    write(tmp_path, "val")
    with pytest.raises(UsageError, match="no 'train' split"):
        open_for_training(tmp_path)
    write(tmp_path, "train")
    (tmp_path / "annotations" / "instances_val.json").unlink()
    train_set, val_set = open_for_training(tmp_path)
    assert val_set is None and len(notes_for_training(train_set, None)) == 1


def test_other_classes_in_validation_are_refused(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "val", category="dog")
    with pytest.raises(InputError, match=r"none of the 1 expected classes \(cat\); first: 'dog'"):
        open_for_training(tmp_path)


def test_damaged_images_are_found_before_training(tmp_path):
    write(tmp_path, "train", names=[f"{i}.jpg" for i in range(4)] + [f"{i}.png" for i in range(4)])
    for name in ("1.jpg", "2.png", "3.png"):
        file = tmp_path / "images" / "train" / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (tmp_path / "images" / "train" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"4 images cannot be read: .*1\.jpg.*0\.png.*2\.png.*3\.png"):
        open_for_training(tmp_path)


def test_an_odd_ending_that_decodes_is_no_damage(tmp_path):
    write(tmp_path, "train", names=("a.jpg", "b.bmp", "c.webp"))
    with (tmp_path / "images" / "train" / "a.jpg").open("ab") as stream:
        stream.write(b"a camera's own data")
    assert len(open_for_training(tmp_path)[0]) == 3


def test_validating_on_training_images_is_said(tmp_path):
    write(tmp_path, "train")
    train_set, val_set = open_for_training(tmp_path / "annotations" / "instances_train.json")
    advice = "to set some images aside: detr data convert DATA --to coco --out NEW --val 0.2"
    said = f"2 of the 2 validation images are training images too; {advice}"
    assert notes_for_training(train_set, val_set) == [said]
    assert notes_for_training(train_set, None) == [
        f"no validation split, so no AP, and the last epoch counts as the best; {advice}"
    ]


def test_clipped_boxes_are_said(tmp_path):
    write(tmp_path, "train", bbox=(15, 0, 50, 5))
    assert notes_for_training(*open_for_training(tmp_path))[:1] == [
        "1 box reaches over the edge of the image, clipped for training"
    ]


@pytest.mark.parametrize("layout", ["images/train.tar", "train.tar", "images/train/shard-000000.tar"])
def test_a_set_whose_images_are_in_tar_files_is_the_same_set(tmp_path, layout):
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for root in (plain, packed):
        write(root, "train")
    folder = packed / "images" / "train"
    files = sorted(folder.iterdir())
    archive = packed / layout
    with tarfile.open(tmp_path / "aside.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
            file.unlink()
    if archive.parent != folder:
        folder.rmdir()
    (tmp_path / "aside.tar").rename(archive)
    (train_set, _), (packed_set, _) = open_for_training(plain), open_for_training(packed)
    assert len(packed_set) == 2
    for index in range(2):
        assert (packed_set[index].image == train_set[index].image).all()
        assert (packed_set.reduced(index, 4).image == train_set.reduced(index, 4).image).all()
    written = convert(packed, "voc", tmp_path / "voc")
    assert written.images == {"train": 2}
    report = examine(packed, Plan("rtdetr-tiny", InputConfig(), 300, 16, 16, 1e-4))
    assert not [finding for finding in report.findings if finding.kind in ("unreadable", "size")]


def test_images_that_an_archive_lacks_are_counted_and_named(tmp_path):
    write(tmp_path, "train")
    file = tmp_path / "images" / "train" / "a.jpg"
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        tar.add(file, "a.jpg")
    with pytest.raises(InputError, match=r"1 image is missing in .*train\.tar: b\.png"):
        open_split(CocoSource(tmp_path / "annotations" / "instances_train.json", tmp_path / "train.tar"))
