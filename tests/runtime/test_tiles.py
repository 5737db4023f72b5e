"""Pictures looked at in tiles: by a network that finds exactly the bright blobs of what it is shown."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detr.data.coco import CocoDataset, read_annotations
from detr.engine.predict import predict
from detr.engine.saving import Wanted
from detr.errors import InputError, UsageError
from detr.evaluation.validate import validate
from detr.image import DETR_INPUT
from detr.records import Output, Predictions
from detr.runtime.settings import slicing_of
from detr.video import VideoWriter, find_sources

SIDE = 64


BLOBS = [(5, 5, 12, 12), (58, 10, 70, 20), (100, 40, 108, 52), (57, 57, 68, 69), (90, 2, 180, 9), (185, 60, 199, 80)]


def scene(blobs=BLOBS, height=90, width=200):
    picture = np.full((height, width, 3), 30, np.uint8)
    for left, top, right, bottom in blobs:
        picture[top:bottom, left:right] = 240
    return picture


def found(results):
    return sorted(tuple(round(value, 2) for value in box) for box in results.boxes.xyxy.tolist())


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_each_object_is_found_once_and_whole(batch, blob_finder):
    detector = blob_finder()
    (results,) = detector(scene(), batch=batch, slice=SIDE, overlap=0.3, tiles_only=True)
    assert len(detector.network.batches) == -(-10 // batch)
    assert found(results) == sorted(tuple(map(float, blob)) for blob in BLOBS)


def test_the_whole_picture_is_looked_at_last(blob_finder):
    detector = blob_finder()
    (results,) = detector(scene([(0, 0, 200, 50)]), batch=10, slice=SIDE, overlap=0.3)
    assert [shape[0] for shape in detector.network.batches] == [10, 1]
    assert found(results) == [pytest.approx((0, 0, 200, 50), abs=1.5)]


def test_without_tiles_what_is_small_is_lost(blob_finder):
    small = [(10 * n + 1, 10, 10 * n + 3, 12) for n in range(19)]
    assert len(blob_finder()(scene(small))[0]) < 3
    assert len(blob_finder()(scene(small), slice=SIDE)[0]) == 19


def test_a_picture_that_is_one_tile_is_seen_as_without(blob_finder):
    picture = scene(BLOBS[:1], 60, 50)
    (plain,) = blob_finder()(picture)
    (sliced,) = blob_finder()(picture, slice=SIDE)
    assert torch.equal(plain.boxes.data, sliced.boxes.data) and torch.equal(plain.as_found, sliced.as_found)


def test_the_whole_picture_of_another_aspect_goes_alone(blob_finder):
    """Where the input keeps the aspect, so that no tile is padded for its sake."""
    update = {"short": SIDE, "long": 2 * SIDE, "mean": None, "std": None}
    detector = blob_finder(DETR_INPUT.model_copy(update=update))
    detector(scene(), slice=SIDE, batch=100)
    assert detector.network.batches == [(8, 3, 64, 64), (1, 3, 58, 128)]


def test_so_many_come_out_as_are_allowed(blob_finder):
    (results,) = blob_finder()(scene(), slice=SIDE, overlap=0.3, max_det=2)
    assert len(results) == 2


def test_videos_are_sliced_frame_by_frame(tmp_path, blob_finder):
    with VideoWriter(tmp_path / "walk.mp4", rate=10) as writer:
        for shift in range(4):
            writer.write(scene([(20 + 40 * shift, 30, 40 + 40 * shift, 50)]))
    detector = blob_finder()
    results = detector(tmp_path / "walk.mp4", slice=SIDE, overlap=0.4)
    assert [len(one) for one in results] == [1] * 4
    assert [float(one.boxes.xywh[0, 0]) for one in results] == pytest.approx([30, 70, 110, 150], abs=1)


def test_predict_and_val_agree_and_are_right(tmp_path, blob_finder):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    records, pictures = [], []
    for number in range(3):
        cells = rng.permutation(18)[:6]  # one blob at most in each of 6 x 3 cells
        blobs = [
            (int(c % 6 * 33 + 2), int(c // 6 * 30 + 2), int(c % 6 * 33 + 14), int(c // 6 * 30 + 12)) for c in cells
        ]
        Image.fromarray(scene(blobs)).save(tmp_path / "images" / f"{number}.png")
        pictures.append({"id": number, "file_name": f"{number}.png", "height": 90, "width": 200})
        for x1, y1, x2, y2 in blobs:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            records.append({"id": len(records) + 1, "image_id": number, "category_id": 7, **box})
    tree = {"images": pictures, "annotations": records, "categories": [{"id": 7, "name": "blob"}]}
    (tmp_path / "truth.json").write_text(json.dumps(tree))
    dataset = CocoDataset(read_annotations(tmp_path / "truth.json"), tmp_path / "images")
    detector = blob_finder()
    slicing = slicing_of(SIDE, overlap=0.3, tiles_only=True, batch=4)
    settings = detector.settings(conf=0.0, slicing=slicing)
    metrics, arrays = validate(detector.runner(), dataset, slicing=slicing, quiet=True)
    assert metrics.as_dict()["AP"] == pytest.approx(1)
    out = tmp_path / "out"
    predict(
        detector, find_sources(tmp_path / "images"), settings, out, wanted=Wanted(images=False, json=True), quiet=True
    )
    rows = json.loads((out / "predictions.json").read_text())
    ours = sorted((row["image_id"], *row["bbox"], row["score"]) for row in rows)
    boxes = zip(arrays.image_indices.tolist(), arrays.boxes.tolist(), arrays.scores.tolist(), strict=True)
    assert ours == sorted((image, *box, score) for image, box, score in boxes)


def test_a_network_that_answers_with_nan_is_an_error(monkeypatch, blob_finder):
    def broken(images, padding=None):
        return Output((Predictions(torch.full((len(images), 1, 1), torch.nan), torch.full((len(images), 1, 4), 0.5)),))

    detector = blob_finder()
    monkeypatch.setattr(detector.network, "forward", broken)
    with pytest.raises(InputError, match="NaN"):
        detector(scene(), slice=SIDE)


@pytest.mark.parametrize("slice", [16, "64", (64, 64, 64), 0.5, []])
def test_slices_that_make_no_sense_are_refused(slice, blob_finder):
    with pytest.raises(UsageError, match="expected"):
        blob_finder()(scene(), slice=slice)
