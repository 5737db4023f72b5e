"""How far what two programs find in the same pictures is the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detr.boxes import iou
from detr.records import Detections

SURE = 0.3  # the score from which on a detection counts
_BEST = 100  # of a picture that count where nothing scores so much
_SAME = 0.01  # pixels: boxes so near are the same, even if they have no area


@dataclass(frozen=True)
class Tolerance:
    """What may differ. The first two are asked of all pictures together."""

    share: float  # of the detections have a counterpart
    iou: float  # that overlaps so much at least,
    score: float  # and scores so much more or less at most
    stage: float  # of what a stage hands on: root mean square of the difference, over that of the values
    margin: float  # by which another query may be chosen, in logits
    ap: float  # that may be lost, of 1


TOLERANCES = {
    "float32": Tolerance(share=0.99, iou=0.99, score=0.01, stage=1e-3, margin=1e-3, ap=0.001),
    "float16": Tolerance(share=0.95, iou=0.95, score=0.05, stage=5e-2, margin=0.1, ap=0.005),
    "int8": Tolerance(share=0.80, iou=0.80, score=0.20, stage=0.5, margin=1.0, ap=0.03),
}
"""By what a file computes in."""


@dataclass(frozen=True)
class Agreement:
    matched: int = 0  # detections of either side that have a counterpart on the other
    counted: int = 0
    worst_iou: float = 1.0  # of the matched ones
    worst_score: float = 0.0  # difference

    @property
    def share(self) -> float:
        return self.matched / self.counted if self.counted else 1.0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.matched + other.matched,
            self.counted + other.counted,
            min(self.worst_iou, other.worst_iou),
            max(self.worst_score, other.worst_score),
        )


def agreement(ours: Detections, theirs: Detections, tolerance: Tolerance, *, sure: float | None) -> Agreement:
    """Of one picture. What scores `sure` on either side is looked for among all of the other; None: the best 100."""
    return _found_again(ours, theirs, tolerance, sure) + _found_again(theirs, ours, tolerance, sure)


def any_sure(found: Detections) -> bool:
    return bool((found.scores >= SURE).any())


def _found_again(these: Detections, those: Detections, tolerance: Tolerance, sure: float | None) -> Agreement:
    order = these.scores.argsort(descending=True)
    wanted = order[: min(_BEST, (len(order) + 1) // 2)] if sure is None else order[these.scores[order] >= sure]
    overlaps = _overlaps(these.boxes[wanted], those.boxes)
    apart = (these.scores[wanted][:, None] - those.scores[None]).abs()
    # Scores of a network that is sure of nothing are all near 0, and so must be what they differ by.
    most = tolerance.score if sure is not None else tolerance.score * float(these.scores.amax(0, keepdim=True).sum())
    may = (these.labels[wanted][:, None] == those.labels[None]) & (overlaps >= tolerance.iou) & (apart <= most)
    free = torch.ones(len(those), dtype=torch.bool)
    result = Agreement(counted=len(wanted))
    for row in range(len(wanted)):
        candidates = (may[row] & free).nonzero()[:, 0]
        if len(candidates):
            chosen = candidates[(overlaps[row, candidates] - apart[row, candidates]).argmax()]
            free[chosen] = False
            result = result + Agreement(1, 0, float(overlaps[row, chosen]), float(apart[row, chosen]))
    return result


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """[N, M] IoU; 1 where the corners are the same."""
    if not len(a) or not len(b):
        return a.new_zeros(len(a), len(b))
    near = (a[:, None] - b[None]).abs().amax(-1) <= _SAME
    return torch.where(near, 1.0, iou(a[:, None], b[None])[0])
