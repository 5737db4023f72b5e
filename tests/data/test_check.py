import json
import time

import pytest
from PIL import Image

from detr.data.check import check_split
from detr.data.coco import CocoDataset, read_annotations
from detr.data.coco_layout import CocoSource
from detr.data.soundness import problems_of_images
from detr.errors import InputError


@pytest.fixture
def source(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in range(4)]
    rows = [
        {"id": 1, "image_id": 0, "category_id": 5, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0},
        {"id": 2, "image_id": 0, "category_id": 6, "bbox": [15, 0, 50, 5], "area": 25, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 5, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1},
    ]
    categories = [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}, {"id": 7, "name": "bird"}]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    folder = tmp_path / "images"
    folder.mkdir()
    for row in images:
        Image.new("RGB", (20, 10)).save(folder / row["file_name"])
    return CocoSource(file, folder)


def test_a_sound_split_is_counted(source):
    report = check_split(source)
    assert (report.num_images, report.num_empty, report.num_boxes, report.num_crowds) == (4, 2, 2, 1)
    assert report.counts == (1, 1, 0)
    assert report.problems == ()
    assert any("1 of 3 classes have no boxes: bird" in note for note in report.notes)
    assert any("1 box reaches over the edge" in note for note in report.notes)
    assert json.loads(json.dumps(report.to_json()))["classes"][1] == {"index": 1, "id": 6, "name": "dog", "boxes": 1}


def test_damaged_images_and_other_sizes_are_all_named(source):
    (source.images / "1.png").write_bytes(b"<html>")
    Image.new("RGB", (21, 10)).save(source.images / "3.png")
    problems = check_split(source).problems
    assert len(problems) == 2
    assert "1.png" in problems[0] and "3.png: is 21 x 10 pixels, the annotation file says 20 x 10" in problems[1]
    assert check_split(source, decode=False).problems == ()


def test_a_missing_image_is_an_error(source):
    (source.images / "1.png").unlink()
    with pytest.raises(InputError, match=r"1 image is missing .*1\.png"):
        check_split(source)


def test_ctrl_c_does_not_wait_for_all_images(source):
    def look(dataset, index):
        looked.append(index)
        time.sleep(0.02)

    def interrupted(found, total, description):
        yield next(iter(found))
        raise KeyboardInterrupt

    looked = []
    dataset = CocoDataset(read_annotations(source.annotations), source.images)
    with pytest.raises(KeyboardInterrupt):
        problems_of_images(_Repeated(dataset), look, interrupted)
    assert len(looked) < 500


class _Repeated:
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 1000
