"""Why AP is lost: TIDE's causes, and the AP that mending each would give (Bolya et al. 2020).

Numbers are those of the authors' library, `tidecv`, to rounding: its own AP at IoU 0.5, which differs from COCO's AP50
in that 100 detections count per image and not per class, and that a class without objects but with detections counts
as 0. What the paper calls localisation is `place` here, and `both` is a wrong class at a wrong place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr.evaluation.outcomes import ENOUGH, Outcomes
from detr.evaluation.overlaps import Pairs

CAUSES = ("class", "place", "both", "duplicate", "background", "missed")
CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(CAUSES))
RIGHT = -1
BARELY = 0.1  # IoU up to which a box is on nothing
_RECALLS = np.arange(101) / 100


@dataclass(frozen=True, eq=False)
class Causes:
    """`D` detections, `A` annotations, as in `Outcomes`. AP from 0 to 1."""

    ap50: float
    gains: dict[str, float]  # AP that mending all errors of a cause would add, others as they are
    without_false: float  # AP that would be added if no false detection were scored above 0
    without_missed: float  # AP that would be added if no object were left that wasn't found
    cause: NDArray[np.int64]  # [D] index of `CAUSES`, RIGHT where it found an object
    about: NDArray[np.int64]  # [D] the object that an error of class, place or repetition is about, -1 for none
    missed: NDArray[np.bool_]  # [A] not found, nor nearly: no error of class or place is about it

    def counts(self) -> dict[str, int]:
        """How many detections have each cause, and how many objects were missed."""
        counted = {name: int((self.cause == index).sum()) for index, name in enumerate(CAUSES)}
        return {**counted, "missed": int(self.missed.sum())}


def find_causes(outcomes: Outcomes) -> Causes:
    cause, about = _causes(outcomes)
    annotations, found = outcomes.annotations, outcomes.found_by >= 0
    nearly = np.zeros(len(found), dtype=bool)
    nearly[about[(cause == CLASS) | (cause == PLACE)]] = True
    missed = ~found & ~nearly & ~annotations.crowd
    counts, there = annotations.counts(), ~outcomes.ignored
    points = _Points(outcomes.labels, outcomes.scores, outcomes.right, there)
    base = _mean_ap(points, np.arange(len(cause)), counts)

    # The library puts false detections before right ones of the same score whenever it mends something.
    order = np.argsort(cause == RIGHT, kind="stable")
    first = _first_about_each(cause, about, found)
    gains = {}
    for index, name in enumerate(CAUSES):
        concerned = cause == index
        mended = concerned & first
        labels = outcomes.labels.copy()
        if index == CLASS:
            labels[mended] = annotations.labels[about[mended]]
        fewer = counts - _per_class(annotations.labels[missed], len(counts)) if index == MISSED else counts
        changed = _Points(labels, outcomes.scores, points.hits | mended, np.where(concerned, first, there))
        gains[name] = max(0.0, _mean_ap(changed, order, fewer) - base)
    ranked = _Points(outcomes.labels, points.hits.astype(float), points.hits, there)
    unfound = annotations.labels[~found & ~annotations.crowd]
    return Causes(
        ap50=base,
        gains=gains,
        without_false=_mean_ap(ranked, order, counts) - base,
        without_missed=_mean_ap(points, order, counts - _per_class(unfound, len(counts))) - base,
        cause=cause,
        about=about,
        missed=missed,
    )


def _causes(outcomes: Outcomes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cause of each detection, and the object it is about: the first that fits, in the library's order."""
    pairs, labels = outcomes.pairs, outcomes.annotations.labels
    same = outcomes.labels[pairs.first] == labels[pairs.second]
    used = outcomes.found_by[pairs.second] >= 0
    count = len(outcomes.labels)
    any_iou, _ = _best(pairs, count)
    same_iou, of_class = _best(pairs.where(same), count)
    other_iou, of_other = _best(pairs.where(~same), count)
    used_iou, of_used = _best(pairs.where(same & used), count)
    tests = {
        PLACE: ((same_iou >= BARELY) & (same_iou <= ENOUGH), of_class),
        CLASS: (other_iou >= ENOUGH, of_other),
        DUPLICATE: (used_iou >= ENOUGH, of_used),
        BACKGROUND: (any_iou <= BARELY, np.full(count, -1)),
    }
    cause, about = np.full(count, BOTH), np.full(count, -1)
    undecided = ~outcomes.right
    cause[outcomes.right] = RIGHT
    for index, (fits, truth) in tests.items():
        here = undecided & fits
        cause[here], about[here] = index, truth[here]
        undecided &= ~fits
    return cause, about


def _best(pairs: Pairs, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each detection its highest IoU, and the first partner that has it; 0 and -1 where it has none."""
    iou, partner = np.zeros(count), np.full(count, -1)
    if len(pairs.first):
        starts = np.flatnonzero(np.diff(pairs.first, prepend=-1))
        iou[pairs.first[starts]] = np.maximum.reduceat(pairs.iou, starts)
        tops = np.flatnonzero(pairs.iou == iou[pairs.first])[::-1]
        partner[pairs.first[tops]] = pairs.second[tops]  # the first is written last
    return iou, partner


def _first_about_each(
    cause: NDArray[np.int64], about: NDArray[np.int64], found: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """[D] the detections that mending makes right: of all that are nearly at an unfound object the best scored."""
    nearly = np.flatnonzero((cause == CLASS) | (cause == PLACE))
    nearly = nearly[~found[about[nearly]]]
    first = np.zeros(len(cause), dtype=bool)
    first[nearly[np.unique(about[nearly], return_index=True)[1]]] = True
    return first


@dataclass(frozen=True, eq=False)
class _Points:
    """What precision and recall are made of; [D] each."""

    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    there: NDArray[np.bool_]  # whether it counts at all


def _mean_ap(points: _Points, order: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Over the classes that have detections or objects; `order` [D] decides between equal scores."""
    order = order[points.there[order]]
    order = order[np.argsort(-points.scores[order], kind="stable")]
    order = order[np.argsort(points.labels[order], kind="stable")]
    bounds = np.searchsorted(points.labels[order], np.arange(len(counts) + 1))
    hits = points.hits[order]
    classes = np.flatnonzero((counts > 0) | (np.diff(bounds) > 0)).tolist()
    precisions = [_ap(hits[bounds[k] : bounds[k + 1]], int(counts[k])) for k in classes]
    return float(np.mean(precisions)) if precisions else 0.0


def _ap(hits: NDArray[np.bool_], count: int) -> float:
    """The mean over 101 recalls of the best precision at that recall or a higher one."""
    if not count:
        return 0.0
    true = np.cumsum(hits)
    precision = np.maximum.accumulate((true / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(true / count, _RECALLS)
    return float(precision[at[at < len(hits)]].sum()) / len(_RECALLS)


def _per_class(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=num_classes)
