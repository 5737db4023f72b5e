"""The evaluator of record: COCO's box metrics from arrays, equal to pycocotools to the last bit.

The order in which things are done is part of the definition (equal scores, equal IoUs, sums of floats), so it is kept:
images and categories by sorted id, stable sorts, and float64 operations one for one as in `bbIou` and `accumulate` of
pycocotools. What differs is the way: no dictionaries, all detections sorted once, IoUs in ragged blocks, and the greedy
matching done for all images, thresholds and area ranges at once.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detr import __version__
from detr.data.annotations import Annotations
from detr.errors import UsageError
from detr.evaluation.matching import COUNTED, UNMATCHED, Found, Order, Truths, in_range, match
from detr.evaluation.metrics import IOU_THRESHOLDS, RECALL_POINTS, Conditions, Curves, Metrics, summarise
from detr.evaluation.overlaps import box_areas
from detr.evaluation.predictions import DetectionArrays
from detr.evaluation.scrutiny import check

Evaluator = Literal["detr", "pycocotools"]


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
    settings = Conditions(evaluator=evaluator, version=version, max_dets=limits)
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
    order = Order.of(annotations)
    truths = Truths.of(annotations, order)
    found = Found.of(detections, order, most=limits[-1])
    rows, met = match(found, truths)
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


def _accumulate(
    curves: Curves,
    rank: int,
    found: Found,
    rows: NDArray[np.int64],
    met: NDArray[np.int8],
    counted: NDArray[np.int64],
) -> None:
    """Fill in one class: its detections, what those of `rows` met, and how many truths count per area range [A]."""
    inside = in_range(box_areas(found.boxes))
    order = np.argsort(-found.scores, kind="stable")
    for m, limit in enumerate(curves.max_dets):
        ranked = order[found.ranks[order] < limit]
        place = np.full(len(order), -1)
        place[ranked] = np.arange(len(ranked))
        within = np.flatnonzero(place[rows] >= 0)
        within = within[np.argsort(place[rows[within]])]
        places, outcome = place[rows[within]], met[within]
        for a in np.flatnonzero(counted):
            curves.recall[:, rank, a, m] = (outcome[:, :, a] == COUNTED).sum(0) / counted[a]
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
    hits = outcome == COUNTED
    true = np.cumsum(hits, axis=0)
    paired = np.cumsum((outcome != UNMATCHED) & inside[places, None], axis=0)
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

    from pycocotools.cocoeval import COCOeval

    order = Order.of(annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        truths = _as_coco(
            order,
            annotations,
            annotations.areas,
            iscrowd=annotations.crowd.astype(int).tolist(),
        )
        found = _as_coco(order, detections, box_areas(detections.boxes), score=detections.scores.tolist())
        judge = COCOeval(truths, found, "bbox")
        judge.params.maxDets = list(limits)
        judge.evaluate()
        judge.accumulate()
    arrays = (judge.eval[name] for name in ("precision", "recall", "scores"))
    return Curves(tuple(limits), *arrays), version("pycocotools")


def _as_coco(order: Order, rows: Annotations | DetectionArrays, areas: NDArray[np.float64], **more: list[Any]) -> Any:
    from pycocotools.coco import COCO

    columns = zip(
        order.image_rank[rows.image_indices].tolist(),
        order.class_rank[rows.labels].tolist(),
        rows.boxes.tolist(),
        areas.tolist(),
        *more.values(),
        strict=True,
    )
    keys = ("image_id", "category_id", "bbox", "area", *more)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": rank} for rank in range(len(order.image_rank))],
        "categories": [{"id": rank} for rank in range(len(order.class_rank))],
        "annotations": [{"id": n, **dict(zip(keys, row, strict=True))} for n, row in enumerate(columns, start=1)],
    }
    coco.createIndex()
    return coco
