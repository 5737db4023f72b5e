"""Which boxes of a data set overlap which others, as arrays; IoUs with the operations of pycocotools, one for one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_PAIRS_AT_ONCE = 1 << 20  # that are held in memory before those without overlap are dropped


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two boxes of one image that overlap, by rising `first`, then `second`; [P] each."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    iou: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Pairs:
        return Pairs(self.first[chosen], self.second[chosen], self.iou[chosen])


def overlapping(
    boxes: NDArray[np.float64],
    images: NDArray[np.int64],
    others: NDArray[np.float64],
    other_images: NDArray[np.int64],
    *,
    crowd: bool = False,
) -> Pairs:
    """All pairs of `boxes` [N, 4] and `others` [K, 4], both xywh, that lie in the same image and overlap.

    `crowd`: the others are crowds; the union is then the first box alone, so that every part of a crowd may be hit.
    """
    by_image = np.argsort(other_images, kind="stable")
    sorted_images = other_images[by_image]
    start = np.searchsorted(sorted_images, images)
    counts = np.searchsorted(sorted_images, images, side="right") - start
    parts = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for block in _blocks(counts):
        first, place = ragged(start[block], counts[block])
        first, second = first + block.start, by_image[place]
        near, iou = pair_ious(boxes[first], others[second], np.full(len(first), crowd))
        parts.append(Pairs(first[near], second[near], iou))
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "second", "iou")))


def ragged(start: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row n stands for `counts[n]` places from `start[n]` on: the row and the place of each, [P] both."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) + np.repeat(start - np.cumsum(counts) + counts, counts)


def pair_ious(
    boxes: NDArray[np.float64], others: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which of the [P] pairs overlap, and the IoU of those; both xywh, `crowd` [P] is about the others."""
    near = np.ones(len(boxes), dtype=bool)
    sides = []
    with np.errstate(over="ignore", invalid="ignore"):
        for axis in (0, 1):
            low, size, other_low, other_size = boxes[:, axis], boxes[:, axis + 2], others[:, axis], others[:, axis + 2]
            sides.append(np.minimum(size + low, other_size + other_low) - np.maximum(low, other_low))
            near &= sides[-1] > 0
    with np.errstate(all="ignore"):
        intersection = sides[0][near] * sides[1][near]
        area, other_area = box_areas(boxes[near]), box_areas(others[near])
        return near, intersection / np.where(crowd[near], area, area + other_area - intersection)


def box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", under="ignore"):
        return boxes[:, 2] * boxes[:, 3]


def _blocks(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Rows in blocks of about `_PAIRS_AT_ONCE` pairs."""
    block = (np.cumsum(counts) - counts) // _PAIRS_AT_ONCE
    bounds = [*np.flatnonzero(np.diff(block, prepend=-1)).tolist(), len(counts)]
    for begin, end in pairwise(bounds):
        yield slice(begin, end)
