"""Which detection meets which truth: COCO's greedy matching, for all images, thresholds and area ranges at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.evaluation.metrics import AREA_RANGES, IOU_THRESHOLDS
from detr.evaluation.overlaps import Pairs, pair_ious, ragged
from detr.evaluation.predictions import DetectionArrays, ranks_by_id

UNMATCHED, COUNTED, IGNORED = 0, 1, 2  # what a detection met: nothing, a truth that counts, one that does not

_PAIRS_AT_ONCE = 1 << 18  # detection-truth pairs whose IoU is held in memory together
_LOW, _HIGH = (np.array(column) for column in zip(*AREA_RANGES.values(), strict=True))  # [A] each


@dataclass(frozen=True, eq=False)
class Order:
    """Images and classes in the order of their ids."""

    image_rank: NDArray[np.int64]  # [I]
    class_rank: NDArray[np.int64]  # [K]

    @classmethod
    def of(cls, annotations: Annotations) -> Order:
        return cls(ranks_by_id(annotations.image_ids), ranks_by_id(annotations.classes.ids))

    def keys(self, labels: NDArray[np.int64], image_indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number per (class, image), rising in class rank and then in image rank."""
        return self.class_rank[labels] * len(self.image_rank) + self.image_rank[image_indices]

    def class_bounds(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """[K + 1] where each class starts in sorted keys."""
        return np.searchsorted(keys, np.arange(len(self.class_rank) + 1) * len(self.image_rank))


@dataclass(frozen=True, eq=False)
class Truths:
    """The ground truth sorted by (class, image), in file order within."""

    keys: NDArray[np.int64]  # [G]
    boxes: NDArray[np.float64]  # [G, 4] xywh
    crowd: NDArray[np.bool_]  # [G]
    counted: NDArray[np.bool_]  # [G, A] True where it is to be found: not a crowd, and of that size
    class_bounds: NDArray[np.int64]  # [K + 1]

    @classmethod
    def of(cls, annotations: Annotations, order: Order) -> Truths:
        keys = order.keys(annotations.labels, annotations.image_indices)
        by_key = np.argsort(keys, kind="stable")
        keys, crowd = keys[by_key], annotations.crowd[by_key]
        counted = in_range(annotations.areas[by_key]) & ~crowd[:, None]
        return cls(keys, annotations.boxes[by_key], crowd, counted, order.class_bounds(keys))


@dataclass(frozen=True, eq=False)
class Found:
    """The detections sorted by (class, image) and falling score, at most so many per class and image."""

    keys: NDArray[np.int64]  # [D]
    boxes: NDArray[np.float64]  # [D, 4] xywh
    scores: NDArray[np.float64]  # [D]
    ranks: NDArray[np.int64]  # [D] 0 for the best of its class and image
    class_bounds: NDArray[np.int64]  # [K + 1]

    @classmethod
    def of(cls, detections: DetectionArrays, order: Order, *, most: int) -> Found:
        keys = order.keys(detections.labels, detections.image_indices)
        by_score = np.argsort(-detections.scores, kind="stable")
        by_key = by_score[np.argsort(keys[by_score], kind="stable")]
        keys = keys[by_key]
        ranks = np.arange(len(keys)) - np.searchsorted(keys, keys)
        keep = ranks < most
        by_key, keys = by_key[keep], keys[keep]
        return cls(keys, detections.boxes[by_key], detections.scores[by_key], ranks[keep], order.class_bounds(keys))

    def part(self, where: slice) -> Found:
        return Found(self.keys[where], self.boxes[where], self.scores[where], self.ranks[where], self.class_bounds)


def in_range(areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[N] -> [N, A]; both ends belong to a range, so an area of exactly 32 * 32 is small and medium."""
    return (areas[:, None] >= _LOW) & (areas[:, None] <= _HIGH)


def match(found: Found, truths: Truths) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Rows [N] of the detections that overlap a truth enough for any threshold, and what each met [N, T, A]."""
    first = np.searchsorted(truths.keys, found.keys)
    counts = np.searchsorted(truths.keys, found.keys, side="right") - first
    taken = np.zeros((len(truths.keys), len(IOU_THRESHOLDS), len(_LOW)), dtype=bool)
    rows, met = [np.empty(0, dtype=np.int64)], [np.empty((0, *taken.shape[1:]), dtype=np.int8)]
    for block in _blocks(found.keys, counts):
        pairs = _overlapping(found, truths, block, first[block], counts[block])
        if len(pairs.iou):
            some_rows, some_met = _match_greedily(found, truths, pairs, taken)
            rows.append(some_rows)
            met.append(some_met)
    return np.concatenate(rows), np.concatenate(met)


def _blocks(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[slice]:
    """Cut the detections, between (class, image) groups only, into blocks of about `_PAIRS_AT_ONCE` pairs."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    pairs_before = np.cumsum(counts)[starts] - counts[starts]
    cuts = starts[np.flatnonzero(np.diff(pairs_before // _PAIRS_AT_ONCE, prepend=-1))].tolist()
    for start, stop in pairwise([*cuts, len(keys)]):
        yield slice(start, stop)


def _overlapping(
    found: Found, truths: Truths, block: slice, first: NDArray[np.int64], counts: NDArray[np.int64]
) -> Pairs:
    """The pairs whose IoU reaches the lowest threshold, given each detection's first truth and number of truths."""
    row, truth = ragged(first, counts)
    detection = row + block.start
    near, iou = pair_ious(found.boxes[detection], truths.boxes[truth], truths.crowd[truth])
    return Pairs(detection[near], truth[near], iou).where(iou >= IOU_THRESHOLDS[0])


def _match_greedily(
    found: Found, truths: Truths, pairs: Pairs, taken: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Give each detection, best score first, the best truth still free; for all groups, thresholds and areas at once.

    A truth that counts is preferred to one that does not; then the higher IoU wins, then the later truth. A crowd is
    never used up. Groups don't touch one another, so wave `w` takes the `w`-th detection of each group. Returns the
    rows [N] of the detections and what each met [N, T, A]; marks the truths in `taken` [G, T, A].
    """
    rows, row = np.unique(pairs.first, return_inverse=True)
    keys = found.keys[rows]
    wave = np.arange(len(rows)) - np.searchsorted(keys, keys)
    order = np.lexsort((pairs.second, pairs.iou, row, wave[row]))
    row, truth, iou = row[order], pairs.second[order], pairs.iou[order]
    met = np.zeros((len(rows), *taken.shape[1:]), dtype=np.int8)
    bounds = np.searchsorted(wave[row], np.arange(wave.max() + 2)).tolist()
    for start, stop in pairwise(bounds):
        here = truth[start:stop]
        free = ~taken[here] & (iou[start:stop, None, None] >= IOU_THRESHOLDS[:, None])
        merit = np.arange(start, stop, dtype=np.int32)[:, None] + np.int32(len(order)) * truths.counted[here]
        merit = np.where(free, merit[:, None, :], np.int32(-1))
        firsts = np.flatnonzero(np.diff(row[start:stop], prepend=-1))
        best = np.maximum.reduceat(merit, firsts, axis=0)  # [detections of the wave, T, A]
        winner = truth[best % len(order)]
        met[row[start:stop][firsts]] = np.where(best < 0, UNMATCHED, np.where(best < len(order), IGNORED, COUNTED))
        used, threshold, area = np.nonzero((best >= 0) & ~truths.crowd[winner])
        taken[winner[used, threshold, area], threshold, area] = True
    return rows, met
