"""What must hold before anything is measured, and what the reader of the numbers should know."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.errors import InputError, counted
from detr.evaluation.predictions import DetectionArrays

_LARGEST_AREA = 1e10  # square pixels: COCO's upper end of "large", beyond which a box is not counted


def check(annotations: Annotations, detections: DetectionArrays, *, limit: int) -> tuple[str, ...]:
    """Refuse what can't be evaluated, and say what the reader of the numbers should know, a line each.

    pycocotools counts a NaN box as a hit, so a diverged model would score AP 1: here that is an InputError. `limit`
    is the number of detections that count per class and image.
    """
    assert detections.image_ids == annotations.image_ids, "detections of another data set"
    if not annotations.image_ids:
        raise InputError("the annotations have 0 images: there is nothing to evaluate")
    _require_finite(annotations.boxes, annotations, annotations.image_indices, "annotated boxes")
    _require_finite(annotations.areas, annotations, annotations.image_indices, "annotated areas")
    _require_finite(detections.boxes, annotations, detections.image_indices, "detected boxes")
    _require_finite(detections.scores, annotations, detections.image_indices, "scores")
    return detections.notes + tuple(_remarks(annotations, detections, limit))


def _require_finite(
    values: NDArray[np.float64], annotations: Annotations, image_indices: NDArray[np.int64], what: str
) -> None:
    bad = ~np.isfinite(values) if values.ndim == 1 else ~np.isfinite(values).all(1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        image = annotations.image_ids[image_indices[first]]
        raise InputError(f"{bad.sum()} {what} are not finite; the first is {values[first].tolist()} in image {image!r}")


def _remarks(annotations: Annotations, detections: DetectionArrays, limit: int) -> Iterator[str]:
    if not len(annotations.labels):
        yield "there are no annotated boxes: nothing can be measured"
    elif annotations.crowd.all():
        yield "all annotated boxes are crowds: nothing can be measured"
    elif not len(detections):
        yield "there are no detections: AP is 0 wherever there is something to find"
    empty = (detections.boxes[:, 2:] <= 0).any(1).sum()
    if empty:
        yield f"{counted(int(empty), 'detection has', 'detections have')} no or negative size, and can match nothing"
    outside = ((detections.scores < 0) | (detections.scores > 1)).sum()
    if outside:
        yield f"{counted(int(outside), 'score lies', 'scores lie')} outside 0..1"
    large = (annotations.areas > _LARGEST_AREA).sum()
    if large:
        boxes = counted(int(large), "annotated box is", "annotated boxes are")
        yield f"{boxes} larger than {_LARGEST_AREA:g} square pixels, not counted"
    for what, records in (("boxes", annotations), ("detections", detections)):
        crowded = _num_crowded_images(records.labels, records.image_indices, len(annotations.image_ids), limit)
        if crowded:
            images = counted(crowded, "image has", "images have")
            yield f"{images} more than {limit} {what} of a class; only the best {limit} detections count"


def _num_crowded_images(labels: NDArray[np.int64], images: NDArray[np.int64], num_images: int, limit: int) -> int:
    groups, counts = np.unique(labels * num_images + images, return_counts=True)
    return len(np.unique(groups[counts > limit] % num_images))
