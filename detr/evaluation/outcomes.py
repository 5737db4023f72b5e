"""What became of each detection and of each object: found, and by which; the ground that all diagnosis stands on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.evaluation.overlaps import Pairs, overlapping
from detr.evaluation.predictions import DetectionArrays

ENOUGH = 0.5  # IoU from which a box is on an object
MOST_PER_IMAGE = 100  # detections that are looked at, over all classes


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Detections by image, as the annotations have these, and falling score. `D` detections, `A` annotations."""

    annotations: Annotations
    images: NDArray[np.int64]  # [D]
    labels: NDArray[np.int64]  # [D]
    scores: NDArray[np.float64]  # [D]
    boxes: NDArray[np.float64]  # [D, 4] xywh in pixels
    truth: NDArray[np.int64]  # [D] the object that it found, -1 for none
    ignored: NDArray[np.bool_]  # [D] lies in a crowd of its class, and neither helps nor harms
    found_by: NDArray[np.int64]  # [A] the detection that found it, -1 for none
    pairs: Pairs  # detections and objects, crowds apart, that overlap, of whatever class

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.truth >= 0


def outcomes(annotations: Annotations, detections: DetectionArrays, *, most: int = MOST_PER_IMAGE) -> Outcomes:
    """Match as the reference of TIDE does (Bolya et al. 2020, section 2).

    The `most` best detections of an image, over all classes, each take the free object of their class that they
    overlap most, the first of equals, if the IoU is `ENOUGH`. COCO's own evaluation lets so many count per class, and
    takes the last of equals.
    """
    order = np.lexsort((-detections.scores, detections.image_indices))
    images = detections.image_indices[order]
    rows = order[np.arange(len(order)) - np.searchsorted(images, images) < most]
    images, labels, boxes = detections.image_indices[rows], detections.labels[rows], detections.boxes[rows]
    objects = np.flatnonzero(~annotations.crowd)
    pairs = overlapping(boxes, images, annotations.boxes[objects], annotations.image_indices[objects])
    pairs = Pairs(pairs.first, objects[pairs.second], pairs.iou)
    same = pairs.where(labels[pairs.first] == annotations.labels[pairs.second])
    truth, found_by = _taken(same, len(rows), len(annotations.labels))
    ignored = _in_crowds(annotations, boxes, images, labels) & (truth < 0)
    scores = detections.scores[rows]
    return Outcomes(annotations, images, labels, scores, boxes, truth, ignored, found_by, pairs)


def _taken(same: Pairs, num_detections: int, num_truths: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each detection's object and each object's detection, from the pairs of one class."""
    near = same.where(same.iou >= ENOUGH)
    truth, found_by = np.full(num_detections, -1), np.full(num_truths, -1)
    order = np.lexsort((near.second, -near.iou, near.first))
    for detection, wanted in zip(near.first[order].tolist(), near.second[order].tolist(), strict=True):
        if truth[detection] < 0 and found_by[wanted] < 0:
            truth[detection], found_by[wanted] = wanted, detection
    return truth, found_by


def _in_crowds(
    annotations: Annotations, boxes: NDArray[np.float64], images: NDArray[np.int64], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """[D] whether more than half of a box lies in a crowd of its class."""
    crowds = np.flatnonzero(annotations.crowd)
    pairs = overlapping(boxes, images, annotations.boxes[crowds], annotations.image_indices[crowds], crowd=True)
    within = (pairs.iou > ENOUGH) & (labels[pairs.first] == annotations.labels[crowds[pairs.second]])
    inside = np.zeros(len(boxes), dtype=bool)
    inside[pairs.first[within]] = True
    return inside
