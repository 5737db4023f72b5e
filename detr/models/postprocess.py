"""From what the network says to boxes in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy
from detr.layers.position import precise
from detr.layers.tables import kept
from detr.records import Detections, Output, Predictions


@dataclass(frozen=True)
class Scoring:
    """How logits become the probability of each class."""

    slots: tuple[int, ...] | None = None  # which logit belongs to each class; None: logit and class are numbered alike
    exclusive: bool = False  # the last logit is "no object", and a query says its best class only (DETR)

    def __call__(self, logits: Tensor) -> Tensor:
        """[B, Q, slots] -> [B, Q, C] in [0, 1]; -1 for what an exclusive query doesn't say."""
        logits = precise(logits)
        if not self.exclusive:
            return self._of_classes(logits).sigmoid()
        scores = logits.softmax(-1)[..., :-1]
        said = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.argmax(-1, keepdim=True), True)
        return self._of_classes(scores.masked_fill(~said, -1.0))

    def chances(self, logits: Tensor) -> Tensor:
        """[B, Q, slots] -> [B, Q, C] in [0, 1], also of the classes that an exclusive query doesn't say."""
        logits = precise(logits)
        return self._of_classes(logits.softmax(-1)[..., :-1] if self.exclusive else logits.sigmoid())

    def _of_classes(self, values: Tensor) -> Tensor:
        return values if self.slots is None else values[..., _index(self.slots, values.device)]


def select(
    output: Output,
    sizes: Sequence[tuple[int, int]],
    *,
    scoring: Scoring = Scoring(),
    conf: float = 0.0,
    max_det: int = 300,
    classes: Sequence[int] | None = None,
) -> list[Detections]:
    """The `max_det` best (query, class) pairs of each image, best first, those scored below `conf` left out.

    `sizes` are the (h, w) of the images as the boxes are wanted, `scoring` the network's. Unless that is exclusive, one
    query may give several detections of different classes, as in the official post-processing; boxes may reach over the
    border. With `classes` only those compete. The detections are on the CPU: how many they are is only known there.
    """
    last = output.layers[-1]
    frames = torch.tensor([(h, w) for h, w in sizes]).view(-1, 2).to(last.boxes.device, non_blocking=True)
    ranked = best(last, frames, scoring=scoring, max_det=max_det, classes=classes)
    return [_above(conf, *each) for each in zip(*(values.cpu() for values in ranked), strict=True)]


def best(
    last: Predictions,
    sizes: Tensor,
    *,
    scoring: Scoring = Scoring(),
    max_det: int = 300,
    classes: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `select`, of all images at once and whatever they score: boxes [B, K, 4], scores [B, K] and labels [B, K].

    sizes [B, 2] of (h, w). K is less than `max_det` only where there are not so many pairs.
    """
    scores = scoring(last.logits)
    num_classes = scores.shape[-1]
    chosen = range(num_classes) if classes is None else list(classes)
    count = last.logits.shape[1] * (1 if scoring.exclusive else len(chosen))
    if classes is not None:
        others = torch.ones(num_classes, dtype=torch.bool)
        others[chosen] = False
        scores = scores.masked_fill(others.to(scores.device, non_blocking=True), -1.0)
    scores, indices = scores.flatten(1).topk(min(max_det, count), dim=1)
    queries, labels = indices // num_classes, indices % num_classes
    boxes = cxcywh_to_xyxy(precise(last.boxes)).gather(1, queries[..., None].expand(-1, -1, 4))
    scale = sizes.flip(-1).repeat(1, 2).to(boxes.dtype)
    return boxes * scale[:, None], scores, labels


def _above(conf: float, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    keep = scores >= max(conf, 0.0)
    return Detections(boxes[keep], scores[keep], labels[keep])


@kept
def _index(slots: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(slots).to(device, non_blocking=True)
