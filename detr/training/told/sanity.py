"""The card of the first steps: a few numbers that tell early whether a training is alive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from detr.boxes import cxcywh_to_xyxy, iou
from detr.criterion import Criterion
from detr.records import Output, Target

LOOKS = (1, 10, 25, 50, 75, 100)  # the steps that are looked at closely; the last one ends the card
CLASS_LOSSES = ("loss_vfl", "loss_mal", "loss_focal", "loss_ce")


@dataclass(frozen=True)
class Look:
    step: int
    loss: float
    class_loss: float
    matched_iou: float | None  # None where the batch has no targets
    rates: tuple[float, ...]  # smallest and largest learning rate


class SanityCard:
    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.data_seconds = 0.0
        self.step_seconds = 0.0
        self.steps = 0

    def time(self, *, data: float, step: float) -> None:
        self.steps += 1
        self.data_seconds += data
        self.step_seconds += step

    def look(self, step: int, losses: Mapping[str, float], matched: float | None, rates: Sequence[float]) -> None:
        class_loss = next((losses[name] for name in CLASS_LOSSES if name in losses), float("nan"))
        self.looks.append(Look(step, sum(losses.values()), class_loss, matched, (min(rates), max(rates))))

    def text(self) -> str:
        lines = [f"first {self.steps} steps", "step      loss  class loss  matched IoU  learning rates"]
        for look in self.looks:
            matched = "-" if look.matched_iou is None else f"{look.matched_iou:.3f}"
            rates = " .. ".join(f"{rate:.2e}" for rate in dict.fromkeys(look.rates))
            lines.append(f"{look.step:4d}  {look.loss:8.3f}  {look.class_loss:10.4f}  {matched:>11}  {rates}")
        waiting, whole = self.data_seconds / self.steps, (self.data_seconds + self.step_seconds) / self.steps
        part = waiting / max(1e-9, whole)
        lines.append(f"waiting for data {waiting:.3f} s of {whole:.3f} s a step ({part:.0%}){_advice(part)}")
        return "\n".join(lines)


def matched_iou(output: Output, targets: Sequence[Target], criterion: Criterion) -> float | None:
    """The mean IoU of the last layer's boxes with the targets they are matched to. Waits for the device."""
    truth, pairs = criterion.matched(output, targets)
    if not len(pairs):
        return None
    boxes = cxcywh_to_xyxy(output.layers[-1].boxes.detach().to(truth.boxes.dtype)[pairs.images, pairs.queries])
    return float(torch.mean(iou(boxes, cxcywh_to_xyxy(truth.boxes[pairs.targets]))[0]))


def _advice(waiting: float) -> str:
    return ": the loader is the bottleneck, more --workers may help" if waiting > 0.3 else ""
