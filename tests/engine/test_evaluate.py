import os
import subprocess
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.engine.evaluate import evaluate
from detr.engine.predictions import DetectionArrays
from detr.errors import InputError, UsageError

RANDOM_SETS = int(os.environ.get("DETR_ORACLE_SETS", "300"))


def annotations_of(boxes, *, labels=None, images=None, areas=None, crowd=None, image_ids=None, class_ids=None):
    """Ground truth from lists; one image and one class unless told otherwise."""
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    number = len(boxes)
    images = np.zeros(number, int) if images is None else np.array(images, dtype=int)
    labels = np.zeros(number, int) if labels is None else np.array(labels, dtype=int)
    image_ids = tuple(range(1, images.max(initial=0) + 2)) if image_ids is None else tuple(image_ids)
    class_ids = tuple(range(1, labels.max(initial=0) + 2)) if class_ids is None else tuple(class_ids)
    sizes = np.full(len(image_ids), 1000)
    return Annotations(
        classes=Classes(class_ids, tuple(f"class {id}" for id in class_ids)),
        image_ids=image_ids,
        file_names=tuple(f"{id}.jpg" for id in image_ids),
        heights=sizes,
        widths=sizes,
        image_indices=images,
        labels=labels,
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3] if areas is None else np.array(areas, dtype=float),
        crowd=np.zeros(number, bool) if crowd is None else np.array(crowd, dtype=bool),
    )


def detections_of(annotations, boxes, scores, *, labels=None, images=None):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    zeros = np.zeros(len(boxes), int)
    return DetectionArrays(
        image_ids=annotations.image_ids,
        image_indices=zeros if images is None else np.array(images, dtype=int),
        labels=zeros if labels is None else np.array(labels, dtype=int),
        boxes=boxes,
        scores=np.array(scores, dtype=float),
    )


def random_set(seed):
    """A small set that has what real ones rarely have: ties, duplicates, crowds, empty boxes, gaps, areas of their own."""
    draw = np.random.default_rng(seed)
    num_images, num_classes = draw.integers(1, 8), draw.integers(1, 5)
    text = draw.random() < 0.1
    ids = draw.permutation(draw.choice(np.arange(-3, 60), num_images, replace=False)).tolist()
    class_ids = draw.choice(np.arange(0, 30), num_classes, replace=False).tolist()
    step = draw.choice([1.0, 5.0, 7.3])  # a grid, so that equal IoUs and areas on the very limits are common
    largest = draw.choice([6, 20, 150]) * step

    def boxes(number):
        corners = np.round(draw.uniform(0, largest, (number, 2)) / step) * step
        sizes = np.round(draw.choice([12, 32, 40, 96, 130], (number, 2)) * draw.uniform(0, 1.2, (number, 1)) / step) * step
        sizes[draw.random(number) < 0.03] = 0
        return np.concatenate((corners, sizes), 1)

    num_boxes = int(draw.choice([0, 1, 5, 30, 60], p=[0.03, 0.07, 0.3, 0.4, 0.2]))
    truth = boxes(num_boxes)
    truth_images, truth_labels = draw.integers(0, num_images, num_boxes), draw.integers(0, num_classes, num_boxes)
    areas = truth[:, 2] * truth[:, 3] * np.where(draw.random(num_boxes) < 0.3, draw.uniform(0.3, 1.2, num_boxes), 1)
    areas[draw.random(num_boxes) < 0.1] = draw.choice([1024.0, 9216.0])
    annotations = annotations_of(
        truth,
        labels=truth_labels,
        images=truth_images,
        areas=areas,
        crowd=draw.random(num_boxes) < draw.choice([0, 0.1, 0.5]),
        image_ids=[f"image {id}" for id in ids] if text else ids,
        class_ids=class_ids,
    )
    found, images, labels = [boxes(draw.integers(0, 20))], [], []
    images.append(draw.integers(0, num_images, len(found[0])))
    labels.append(draw.integers(0, num_classes, len(found[0])))
    for _ in range(draw.integers(0, 4) if num_boxes else 0):
        again = draw.integers(0, num_boxes, draw.integers(1, 40))
        shift = np.round(draw.normal(0, draw.choice([0, 2, 8]), (len(again), 4)) / step) * step
        found.append(truth[again] + shift * np.array([1, 1, 0, 0]))
        images.append(truth_images[again])
        labels.append(np.where(draw.random(len(again)) < 0.1, draw.integers(0, num_classes), truth_labels[again]))
    found = np.concatenate(found)
    scores = np.round(draw.random(len(found)), int(draw.choice([0, 1, 2, 9])))
    order = draw.permutation(len(found))
    return annotations, detections_of(
        annotations,
        found[order],
        scores[order],
        labels=np.concatenate(labels)[order],
        images=np.concatenate(images)[order],
    )


def pycocotools_says(annotations, detections, max_dets=(1, 10, 100)):
    """Its 12 numbers and its arrays, with the set's own image and category ids, by its usual way in."""
    dataset = {
        "images": [{"id": id} for id in annotations.image_ids],
        "categories": [{"id": id} for id in annotations.classes.ids],
        "annotations": [
            {
                "id": number + 1,
                "image_id": annotations.image_ids[annotations.image_indices[number]],
                "category_id": annotations.classes.ids[annotations.labels[number]],
                "bbox": annotations.boxes[number].tolist(),
                "area": float(annotations.areas[number]),
                "iscrowd": int(annotations.crowd[number]),
            }
            for number in range(len(annotations.labels))
        ],
    }
    results = [
        {
            "image_id": detections.image_ids[detections.image_indices[number]],
            "category_id": annotations.classes.ids[detections.labels[number]],
            "bbox": detections.boxes[number].tolist(),
            "score": float(detections.scores[number]),
        }
        for number in range(len(detections))
    ]
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    judge = COCOeval(coco, coco.loadRes(results), "bbox")
    judge.params.maxDets = list(max_dets)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats, judge.eval


def assert_equal_to_pycocotools(annotations, detections):
    stats, arrays = pycocotools_says(annotations, detections)
    ours = evaluate(annotations, detections)
    assert ours.stats.tolist() == stats.tolist()
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(getattr(ours.curves, name), arrays[name]), name
    return ours


@pytest.mark.parametrize("part", range(3))
def test_random_sets_give_the_numbers_and_curves_of_pycocotools_to_the_last_bit(part):
    compared = 0
    for seed in range(part, RANDOM_SETS, 3):
        annotations, detections = random_set(seed)
        if len(detections):
            assert_equal_to_pycocotools(annotations, detections)
            compared += 1
    assert compared > 0.9 * RANDOM_SETS / 3
