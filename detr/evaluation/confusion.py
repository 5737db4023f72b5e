"""Which class is taken for which: a table of counts with the background as one class more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr.evaluation.outcomes import ENOUGH, Outcomes

SCORE = 0.25  # what `detr predict` shows by default


@dataclass(frozen=True, eq=False)
class Confusion:
    """`counts[t, p]`: objects of class t that a box of class p was on. The last row and column are the background:
    boxes on nothing, and objects without a box."""

    counts: NDArray[np.int64]  # [K + 1, K + 1]
    names: tuple[str, ...]  # K
    score: float
    iou: float

    def shares(self) -> NDArray[np.float64]:
        """[K + 1, K + 1] each row by its sum: of the objects of a class, and of the boxes on nothing; else 0."""
        return self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)

    def worst(self, most: int) -> list[tuple[str, str, int]]:
        """(class, taken for, how often), most often first; background apart."""
        inner = self.counts[:-1, :-1].copy()
        np.fill_diagonal(inner, 0)
        order = np.argsort(-inner, axis=None, kind="stable")[:most]
        rows, columns = np.unravel_index(order, inner.shape)
        cells = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(self.names[t], self.names[p], int(inner[t, p])) for t, p in cells if inner[t, p]]


def confusion(outcomes: Outcomes, *, score: float = SCORE) -> Confusion:
    """From boxes scored `score` or more: each takes one object, and each object one box, those of the highest IoU first
    if it is `ENOUGH`; of equal IoUs those of the object's own class, then the best scored. What is left and lies in a
    crowd of its class is left out.
    """
    annotations, pairs = outcomes.annotations, outcomes.pairs
    shown = outcomes.scores >= score
    near = pairs.where((pairs.iou >= ENOUGH) & shown[pairs.first])
    other = outcomes.labels[near.first] != annotations.labels[near.second]
    order = np.lexsort((near.second, -outcomes.scores[near.first], other, -near.iou))
    taken = np.full(len(shown), -1)
    free = ~annotations.crowd
    for detection, truth in zip(near.first[order].tolist(), near.second[order].tolist(), strict=True):
        if taken[detection] < 0 and free[truth]:
            taken[detection], free[truth] = truth, False
    background = len(annotations.classes)
    on = taken >= 0
    false, missed = outcomes.labels[shown & ~on & ~outcomes.ignored], annotations.labels[free]
    is_one = np.concatenate((annotations.labels[taken[on]], np.full(len(false), background), missed))
    said = np.concatenate((outcomes.labels[on], false, np.full(len(missed), background)))
    cells = np.bincount(is_one * (background + 1) + said, minlength=(background + 1) ** 2)
    return Confusion(cells.reshape(background + 1, -1), annotations.classes.names, score, ENOUGH)
