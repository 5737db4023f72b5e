"""Precision, recall and F1 of each class by score, the threshold with the best F1, and how far scores are true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.classes import Classes
from detr.errors import InputError, did_you_mean, listed
from detr.evaluation.outcomes import Outcomes
from detr.files import read_json

SCORES = np.linspace(0.0, 1.0, 101)
LOWEST = 0.05  # score from which calibration is looked at: below there are thousands of boxes that nobody shows
_BINS = 10


@dataclass(frozen=True, eq=False)
class ByScore:
    """How good a class is, if boxes from a score on are shown; `S` scores of `SCORES`. NaN where nothing is shown."""

    precision: NDArray[np.float64]  # [K, S]
    recall: NDArray[np.float64]  # [K, S], 0 for a class without objects
    f1: NDArray[np.float64]  # [K, S], 0 where nothing is shown
    best: NDArray[np.float64]  # [K] the threshold with the highest F1; NaN for a class of which nothing is found
    best_f1: NDArray[np.float64]  # [K] 0 for such a class

    def threshold(self, otherwise: float) -> NDArray[np.float64]:
        """[K] the best one of each class, `otherwise` where there is none."""
        return np.where(np.isnan(self.best), otherwise, self.best)


def by_score(outcomes: Outcomes) -> ByScore:
    counts = outcomes.annotations.counts()
    shape = (len(counts), len(SCORES))
    precision, recall, f1 = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
    best, best_f1 = np.full(len(counts), np.nan), np.zeros(len(counts))
    order = np.lexsort((-outcomes.scores, outcomes.labels))
    order = order[~outcomes.ignored[order]]
    bounds = np.searchsorted(outcomes.labels[order], np.arange(len(counts) + 1))
    for k, count in enumerate(counts.tolist()):
        mine = order[bounds[k] : bounds[k + 1]]
        scores, true = outcomes.scores[mine], np.cumsum(outcomes.right[mine])
        shown = np.searchsorted(-scores, -SCORES, side="right")  # how many score so much or more
        some, right = shown > 0, np.append(0, true)[shown]
        precision[k, some] = right[some] / shown[some]
        recall[k] = right / max(count, 1)
        f1[k] = 2 * right / np.maximum(shown + count, 1)
        if len(mine) and true[-1]:
            best[k], best_f1[k] = _best(scores, 2 * true / (np.arange(1, len(mine) + 1) + count))
    return ByScore(precision, recall, f1, best, best_f1)


def _best(scores: NDArray[np.float64], f1: NDArray[np.float64]) -> tuple[float, float]:
    """The threshold, half way to the next lower score so that rounding doesn't matter, and its F1."""
    last_of_equals = np.append(scores[1:] < scores[:-1], True)
    at = int(np.argmax(np.where(last_of_equals, f1, -1.0)))
    lower = float(scores[at + 1]) if at + 1 < len(scores) else 0.0
    return (float(scores[at]) + lower) / 2, float(f1[at])


@dataclass(frozen=True, eq=False)
class Calibration:
    """Boxes by score, in bins of equal width over [0, 1]; NaN where a bin is empty."""

    edges: NDArray[np.float64]  # [bins + 1]
    counts: NDArray[np.int64]  # [bins]
    score: NDArray[np.float64]  # [bins] mean
    precision: NDArray[np.float64]  # [bins] share that is right
    error: float  # expected calibration error: |precision - score| over all boxes; NaN where there is none


def calibration(outcomes: Outcomes) -> Calibration:
    """Of the boxes scored `LOWEST` or more (Guo et al. 2017); right is a box that found an object of its class."""
    seen = ~outcomes.ignored & (outcomes.scores >= LOWEST)
    scores, right = outcomes.scores[seen], outcomes.right[seen]
    edges = np.linspace(0, 1, _BINS + 1)
    bin = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, _BINS - 1)
    counts = np.bincount(bin, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        score = np.bincount(bin, scores, _BINS) / counts
        precision = np.bincount(bin, right, _BINS) / counts
    error = float(np.nansum(counts * np.abs(precision - score)) / counts.sum()) if len(scores) else float("nan")
    return Calibration(edges, counts, score, precision, error)


def thresholds_file(measured: ByScore, classes: Classes) -> dict[str, Any]:
    """What `read_thresholds` reads: the best threshold of each class, and their median for all others."""
    known = {name: float(best) for name, best in zip(classes.names, measured.best, strict=True) if best == best}
    otherwise = float(np.median(list(known.values()))) if known else 0.25
    return {"thresholds": known, "otherwise": otherwise}


def read_thresholds(path: Path, classes: Classes) -> tuple[float, ...]:
    """The threshold of each class, by name, from such a file; InputError where it isn't one."""
    tree = read_json(path)
    known = tree.get("thresholds") if isinstance(tree, Mapping) else None
    if not isinstance(known, Mapping):
        raise InputError(f"{path} is no file of thresholds; `detr val --why` writes thresholds.json")
    values = {**known, "otherwise": tree.get("otherwise", 0.25)}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f"{path}: {name}: {value!r} is no number from 0 to 1")
    if known and not set(known) & set(classes.names):
        near = did_you_mean(next(iter(known)), classes.names)
        raise InputError(f"{path} is for other classes than the model's: {listed(list(known))}{near}")
    return tuple(float(known.get(name, values["otherwise"])) for name in classes.names)
