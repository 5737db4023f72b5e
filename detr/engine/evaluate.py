"""The evaluator of record: COCO's box metrics from arrays, equal to pycocotools to the last bit.

The order in which things are done is part of the definition (equal scores, equal IoUs, sums of floats), so it is kept:
images and categories by sorted id, stable sorts, and float64 operations one for one as in `bbIou` and `accumulate` of
pycocotools. What differs is the way: no dictionaries, all detections sorted once, IoUs in ragged blocks, and the greedy
matching done for all images, thresholds and area ranges at once.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detr import __version__
from detr.data.annotations import Annotations
from detr.engine.metrics import AREA_RANGES, IOU_THRESHOLDS, RECALL_POINTS, Curves, Metrics, Settings, summarise
from detr.engine.predictions import DetectionArrays, check, ranks_by_id
from detr.errors import UsageError

Evaluator = Literal["detr", "pycocotools"]

_PAIRS_AT_ONCE = 1 << 18  # detection-truth pairs whose IoU is held in memory together
_LOW, _HIGH = (np.array(column) for column in zip(*AREA_RANGES.values(), strict=True))  # [A] each

_UNMATCHED, _COUNTED, _IGNORED = 0, 1, 2  # what a detection met: nothing, a truth that counts, one that does not


def evaluate(
    annotations: Annotations,
    detections: DetectionArrays,
    *,
    max_dets: int | Sequence[int] = (1, 10, 100),
    evaluator: Evaluator = "detr",
) -> Metrics:
    """The 12 COCO numbers, per-class numbers and curves.

    `max_dets` detections count per class and image: three rising limits, or one number `n` for `(1, 10, n)`; AP and
    the AR by size are taken at the largest. InputError for values that aren't finite, UsageError for bad settings.
    A number that has no ground truth to measure is -1, as in pycocotools.
    """
    limits = _limits(max_dets)
    if evaluator not in ("detr", "pycocotools"):
        raise UsageError(f"evaluator {evaluator!r}: expected 'detr' or 'pycocotools'")
    notes = check(annotations, detections, limit=limits[-1])
    measured = tuple(sorted({*limits, 100})) if limits[-1] > 100 else tuple(sorted(set(limits)))
    if evaluator == "pycocotools":
        curves, version = _by_pycocotools(annotations, detections, measured)
    else:
        curves, version = _by_arrays(annotations, detections, measured), __version__
    settings = Settings(evaluator=evaluator, version=version, max_dets=limits)
    return summarise(curves, annotations, detections, settings=settings, notes=notes)


def _limits(max_dets: int | Sequence[int]) -> tuple[int, int, int]:
    given = [max_dets] if isinstance(max_dets, int) else list(max_dets)
    whole = all(isinstance(limit, int | np.integer) and limit >= 1 for limit in given)
    if not whole or len(given) not in (1, 3) or sorted(set(given)) != given:
        raise UsageError(f"max dets {max_dets!r}: expected one whole number from 1 up, or three rising ones")
    if len(given) == 1:
        return 1, min(10, given[0]), given[0]
    return given[0], given[1], given[2]


def _by_arrays(annotations: Annotations, detections: DetectionArrays, limits: tuple[int, ...]) -> Curves:
    order = _Order.of(annotations)
    truths = _Truths.of(annotations, order)
    found = _Found.of(detections, order, most=limits[-1])
    rows, met = _match(found, truths)
    curves = Curves.empty(len(order.class_rank), limits)
    row_bounds = np.searchsorted(rows, found.class_bounds)
    for rank in range(len(order.class_rank)):
        counted = truths.counted[truths.class_bounds[rank] : truths.class_bounds[rank + 1]].sum(0)  # [A]
        if not counted.any():
            continue
        part = slice(found.class_bounds[rank], found.class_bounds[rank + 1])
        mine = slice(row_bounds[rank], row_bounds[rank + 1])
        _accumulate(curves, rank, found.part(part), rows[mine] - part.start, met[mine], counted)
    return curves


@dataclass(frozen=True, eq=False)
class _Order:
    """Images and classes in the order of their ids."""

    image_rank: NDArray[np.int64]  # [I]
    class_rank: NDArray[np.int64]  # [K]

    @classmethod
    def of(cls, annotations: Annotations) -> _Order:
        return cls(ranks_by_id(annotations.image_ids), ranks_by_id(annotations.classes.ids))

    def keys(self, labels: NDArray[np.int64], image_indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number per (class, image), rising in class rank and then in image rank."""
        return self.class_rank[labels] * len(self.image_rank) + self.image_rank[image_indices]

    def class_bounds(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """[K + 1] where each class starts in sorted keys."""
        return np.searchsorted(keys, np.arange(len(self.class_rank) + 1) * len(self.image_rank))


@dataclass(frozen=True, eq=False)
class _Truths:
    """The ground truth sorted by (class, image), in file order within."""

    keys: NDArray[np.int64]  # [G]
    boxes: NDArray[np.float64]  # [G, 4] xywh
    crowd: NDArray[np.bool_]  # [G]
    counted: NDArray[np.bool_]  # [G, A] True where it is to be found: not a crowd, and of that size
    class_bounds: NDArray[np.int64]  # [K + 1]

    @classmethod
    def of(cls, annotations: Annotations, order: _Order) -> _Truths:
        keys = order.keys(annotations.labels, annotations.image_indices)
        by_key = np.argsort(keys, kind="stable")
        keys, crowd = keys[by_key], annotations.crowd[by_key]
        counted = _in_range(annotations.areas[by_key]) & ~crowd[:, None]
        return cls(keys, annotations.boxes[by_key], crowd, counted, order.class_bounds(keys))


@dataclass(frozen=True, eq=False)
class _Found:
    """The detections sorted by (class, image) and falling score, at most so many per class and image."""

    keys: NDArray[np.int64]  # [D]
    boxes: NDArray[np.float64]  # [D, 4] xywh
    scores: NDArray[np.float64]  # [D]
    ranks: NDArray[np.int64]  # [D] 0 for the best of its class and image
    class_bounds: NDArray[np.int64]  # [K + 1]

    @classmethod
    def of(cls, detections: DetectionArrays, order: _Order, *, most: int) -> _Found:
        keys = order.keys(detections.labels, detections.image_indices)
        by_score = np.argsort(-detections.scores, kind="stable")
        by_key = by_score[np.argsort(keys[by_score], kind="stable")]
        keys = keys[by_key]
        ranks = np.arange(len(keys)) - np.searchsorted(keys, keys)
        keep = ranks < most
        by_key, keys = by_key[keep], keys[keep]
        return cls(keys, detections.boxes[by_key], detections.scores[by_key], ranks[keep], order.class_bounds(keys))

    def part(self, where: slice) -> _Found:
        return _Found(self.keys[where], self.boxes[where], self.scores[where], self.ranks[where], self.class_bounds)


def _in_range(areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[N] -> [N, A]; both ends belong to a range, so an area of exactly 32 * 32 is small and medium."""
    return (areas[:, None] >= _LOW) & (areas[:, None] <= _HIGH)


def _box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", under="ignore"):
        return boxes[:, 2] * boxes[:, 3]


def _match(found: _Found, truths: _Truths) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
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


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Detections and truths of one class and image that overlap; [P] each."""

    detection: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def _overlapping(
    found: _Found, truths: _Truths, block: slice, first: NDArray[np.int64], counts: NDArray[np.int64]
) -> _Pairs:
    """The pairs whose IoU reaches the lowest threshold, given each detection's first truth and number of truths.

    For a crowd the union is the detection's own area, so that every part of the crowd may be hit.
    """
    row = np.repeat(np.arange(len(counts)), counts)
    truth = np.arange(len(row)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    detection = row + block.start
    near = np.ones(len(row), dtype=bool)
    sides = []
    with np.errstate(over="ignore", invalid="ignore"):
        for axis in (0, 1):
            low, size = found.boxes[detection, axis], found.boxes[detection, axis + 2]
            other_low, other_size = truths.boxes[truth, axis], truths.boxes[truth, axis + 2]
            sides.append(np.minimum(size + low, other_size + other_low) - np.maximum(low, other_low))
            near &= sides[-1] > 0
    detection, truth = detection[near], truth[near]
    with np.errstate(all="ignore"):
        intersection = sides[0][near] * sides[1][near]
        area, other_area = _box_areas(found.boxes[detection]), _box_areas(truths.boxes[truth])
        iou = intersection / np.where(truths.crowd[truth], area, area + other_area - intersection)
        enough = iou >= IOU_THRESHOLDS[0]
    return _Pairs(detection[enough], truth[enough], iou[enough])


def _match_greedily(
    found: _Found, truths: _Truths, pairs: _Pairs, taken: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Give each detection, best score first, the best truth still free; for all groups, thresholds and areas at once.

    A truth that counts is preferred to one that does not; then the higher IoU wins, then the later truth. A crowd is
    never used up. Groups don't touch one another, so wave `w` takes the `w`-th detection of each group. Returns the
    rows [N] of the detections and what each met [N, T, A]; marks the truths in `taken` [G, T, A].
    """
    rows, row = np.unique(pairs.detection, return_inverse=True)
    keys = found.keys[rows]
    wave = np.arange(len(rows)) - np.searchsorted(keys, keys)
    order = np.lexsort((pairs.truth, pairs.iou, row, wave[row]))
    row, truth, iou = row[order], pairs.truth[order], pairs.iou[order]
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
        met[row[start:stop][firsts]] = np.where(best < 0, _UNMATCHED, np.where(best < len(order), _IGNORED, _COUNTED))
        used, threshold, area = np.nonzero((best >= 0) & ~truths.crowd[winner])
        taken[winner[used, threshold, area], threshold, area] = True
    return rows, met


def _accumulate(
    curves: Curves,
    rank: int,
    found: _Found,
    rows: NDArray[np.int64],
    met: NDArray[np.int8],
    counted: NDArray[np.int64],
) -> None:
    """Fill in one class: its detections, what those of `rows` met, and how many truths count per area range [A]."""
    inside = _in_range(_box_areas(found.boxes))
    order = np.argsort(-found.scores, kind="stable")
    for m, limit in enumerate(curves.max_dets):
        ranked = order[found.ranks[order] < limit]
        place = np.full(len(order), -1)
        place[ranked] = np.arange(len(ranked))
        within = np.flatnonzero(place[rows] >= 0)
        within = within[np.argsort(place[rows[within]])]
        places, outcome = place[rows[within]], met[within]
        for a in np.flatnonzero(counted):
            curves.recall[:, rank, a, m] = (outcome[:, :, a] == _COUNTED).sum(0) / counted[a]
            precision, at = _precision(outcome[:, :, a], places, inside[ranked, a], int(counted[a]))
            curves.precision[:, :, rank, a, m] = precision
            scores = found.scores[ranked]
            curves.scores[:, :, rank, a, m] = np.where(at >= 0, scores[at] if len(scores) else 0.0, 0.0)


def _precision(
    outcome: NDArray[np.int8], places: NDArray[np.int64], inside: NDArray[np.bool_], counted: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Precision [T, R] at each recall point, no lower than at any higher recall, and the place [T, R] it is taken at.

    Only detections with an outcome can be hits, and precision can only peak at hits, so all others matter by their
    number alone: `inside` [D] says which are of the size in question and so would be false. `places` [N] are those of
    `outcome` [N, T] among all D. A place of -1: the recall is never reached.
    """
    hits = outcome == _COUNTED
    true = np.cumsum(hits, axis=0)
    paired = np.cumsum((outcome != _UNMATCHED) & inside[places, None], axis=0)
    false = (np.cumsum(inside)[places, None] - paired).astype(float)
    true = true.astype(float)
    precision = np.where(hits, true / (false + true + np.spacing(1)), 0.0)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    values = np.zeros((len(IOU_THRESHOLDS), len(RECALL_POINTS)))
    at = np.full(values.shape, -1)
    for t in range(len(IOU_THRESHOLDS)):
        row = np.searchsorted(true[:, t] / counted, RECALL_POINTS)
        row = row[row < len(outcome)]
        values[t, : len(row)] = precision[row, t]
        at[t, : len(row)] = places[row]
    at[:, RECALL_POINTS == 0] = 0 if len(inside) else -1
    return values, at


def _by_pycocotools(
    annotations: Annotations, detections: DetectionArrays, limits: tuple[int, ...]
) -> tuple[Curves, str]:
    """The same from pycocotools: slow, large, and the oracle of the tests.

    Images, categories and boxes are numbered anew in the order of their ids, so that an annotation id of 0, which
    pycocotools takes for "no match", does not occur.
    """
    from importlib.metadata import version

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    order = _Order.of(annotations)
    images = [{"id": rank} for rank in range(len(order.image_rank))]
    categories = [{"id": rank} for rank in range(len(order.class_rank))]

    def table(boxes: Any, areas: Any, labels: Any, image_indices: Any, **more: Any) -> Any:
        columns = zip(
            order.image_rank[image_indices].tolist(),
            order.class_rank[labels].tolist(),
            boxes.tolist(),
            areas.tolist(),
            *more.values(),
            strict=True,
        )
        keys = ("image_id", "category_id", "bbox", "area", *more)
        rows = [{"id": n, **dict(zip(keys, row, strict=True))} for n, row in enumerate(columns, start=1)]
        coco = COCO()
        coco.dataset = {"images": images, "categories": categories, "annotations": rows}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        truths = table(
            annotations.boxes,
            annotations.areas,
            annotations.labels,
            annotations.image_indices,
            iscrowd=annotations.crowd.astype(int).tolist(),
        )
        found = table(
            detections.boxes,
            _box_areas(detections.boxes),
            detections.labels,
            detections.image_indices,
            score=detections.scores.tolist(),
        )
        judge = COCOeval(truths, found, "bbox")
        judge.params.maxDets = list(limits)
        judge.evaluate()
        judge.accumulate()
    arrays = (judge.eval[name] for name in ("precision", "recall", "scores"))
    return Curves(tuple(limits), *arrays), version("pycocotools")
