"""What is wrong with boxes, whatever they show: where they lie, how small they become, which are there twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr.data.coco import clipped
from detr.data.doctor_images import Seen
from detr.image import InputConfig

SMALLEST = 8  # pixels of the input: a position of the finest map that most of these models look at
_OVER = 0.5  # pixels over the edge that are no more than rounding
_SAME = 0.95  # IoU of two boxes of one class that are one


@dataclass(frozen=True, eq=False)
class Faults:
    """[A] each: which boxes have it. Crowds have none of the last two."""

    outside: NDArray[np.bool_]  # of their image, wholly
    over: NDArray[np.bool_]  # the edge, in part
    thin: NDArray[np.bool_]  # less than a pixel of it within the image, in width or height
    repeated: NDArray[np.bool_]  # as an earlier box of the same class
    contradicting: NDArray[np.bool_]  # an earlier box of another class, at the same place


def faults(seen: Seen) -> Faults:
    known = seen.annotations
    corners, kept = clipped(known.boxes, seen.box_sizes[:, 0], seen.box_sizes[:, 1])
    raw = np.concatenate([known.boxes[:, :2], known.boxes[:, :2] + known.boxes[:, 2:]], 1)
    sides = corners[:, 2:] - corners[:, :2]
    sized = (seen.box_sizes > 0).all(1)
    repeated, contradicting = np.zeros(len(raw), bool), np.zeros(len(raw), bool)
    for rows in rows_by_image(seen):
        rows = rows[~known.crowd[rows]]
        same = np.triu(_overlaps(raw[rows]) >= _SAME, 1)
        alike = known.labels[rows][:, None] == known.labels[rows][None]
        repeated[rows] = (same & alike).any(0)
        contradicting[rows] = (same & ~alike).any(0)
    return Faults(
        outside=sized & ~kept,
        over=sized & kept & (np.abs(corners - raw).max(1, initial=0) > _OVER),
        thin=sized & kept & (sides.min(1, initial=np.inf) < 1),
        repeated=repeated,
        contradicting=contradicting & ~repeated,
    )


def input_sides(seen: Seen, input: InputConfig) -> NDArray[np.float64]:
    """[A] the side of a square as large as each box, in pixels of the network's input; NaN where that isn't known."""
    inputs = np.array([input.size_of(*size) if min(size) else (0, 0) for size in seen.sizes.tolist()], np.float64)
    shares = inputs.reshape(-1, 2)[seen.annotations.image_indices] / np.maximum(seen.box_sizes, 1)
    sides = np.sqrt(np.prod(seen.annotations.boxes[:, 2:] * shares[:, ::-1], 1))
    return np.where((seen.box_sizes > 0).all(1), sides, np.nan)


def rows_by_image(seen: Seen) -> Iterator[NDArray[np.int64]]:
    """The rows of the boxes of each image that has any."""
    images = seen.annotations.image_indices
    order = np.argsort(images, kind="stable")
    starts = np.flatnonzero(np.diff(images[order], prepend=-1))
    yield from np.split(order, starts[1:]) if len(order) else ()


def _overlaps(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, N] IoU of [N, 4] xyxy."""
    low = np.maximum(corners[:, None, :2], corners[None, :, :2])
    high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), -1)
    areas = np.prod(corners[:, 2:] - corners[:, :2], 1)
    return both / np.maximum(areas[:, None] + areas[None] - both, 1e-12)
