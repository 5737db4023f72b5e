"""A place of a picture that is asked about: which queries came nearest to it, and where it was lost if it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr.bands import Bands
from detr.boxes import giou, iou
from detr.explain.explanations import View, explanations
from detr.explain.recording import Recording
from detr.explain.records import Explanation
from detr.json_shape import box_row
from detr.models.network import DetectionNetwork
from detr.records import Detections

STARTED = 0.1  # IoU from which a starting box is on an object
ENDED = 0.5  # IoU from which a box of the last layer is
_NEAREST = 3  # queries that are shown


@dataclass(frozen=True)
class Asked:
    """What became of a place."""

    box: tuple[float, ...]  # xyxy in pixels
    said: str  # where it was lost, or what is there
    start: float | None  # highest IoU with a box that a query started from; None where they start nowhere in particular
    end: float  # highest IoU with a box of the last layer

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "box": box_row(self.box)}


@torch.inference_mode()
def ask(
    recorded: Recording,
    network: DetectionNetwork,
    image: Bands,
    box: Sequence[float],
    names: Mapping[int, str],
    *,
    classes: Sequence[int] | None,
    least: Sequence[float],
) -> tuple[Asked, list[Explanation]]:
    """What became of the place `box` [4] xyxy in pixels, and the queries whose boxes came nearest to it.

    `classes` are those that could be there, all by default; `least` [C] the score of each from which on it is shown.
    """
    view = View(recorded, network, image.shape[0], image.shape[1], 0)
    boxes, chances, shown = view.ends()
    ends = iou(boxes, boxes.new_tensor(box))[0]
    wanted = list(range(len(names))) if classes is None else list(classes)
    scores, index = chances[:, wanted].max(-1)
    labels = torch.tensor(wanted)[index]
    ranking = torch.where(ends >= ENDED, 1 + scores, giou(boxes, boxes.new_tensor(box)))  # which falls with distance
    nearest = ranking.argsort(descending=True)[:_NEAREST]
    found = Detections(boxes[nearest], scores[nearest], labels[nearest])
    starts = view.starts()
    start = None if starts is None else float(iou(starts, starts.new_tensor(box))[0].max())
    first = int(nearest[0])
    if ends[first] >= ENDED:
        said = _on_it(names, first, int(labels[first]), ends, chances, shown, least)
    elif start is not None and start < STARTED:
        said = f"no query started there (the nearest start has IoU {start:.2f} with it){_passed_over(view, box)}"
    else:
        said = f"no query ended there: the nearest box has IoU {float(ends.max()):.2f} with it"
    asked = Asked(tuple(box), said, start, float(ends.max()))
    return asked, explanations(recorded, network, image, found, names, queries=nearest.tolist())


def _on_it(
    names: Mapping[int, str],
    query: int,
    label: int,
    ends: Tensor,
    chances: Tensor,
    shown: Tensor,
    least: Sequence[float],
) -> str:
    """Of the best query that ended there."""
    score = float(chances[query, label])
    if shown[query, label] >= least[label]:
        return f"{names[label]} {score:.2f} is there, with IoU {float(ends[query]):.2f}"
    over = shown[ends >= ENDED].amax(0)
    other = int(over.where(over >= over.new_tensor(least), -1.0).argmax())
    low = f"{names[label]} scores {score:.2f} there, and is shown from {least[label]:.2f} on"
    return f"taken for {names[other]} {float(over[other]):.2f}; {low}" if over[other] >= least[other] else low


def _passed_over(view: View, box: Sequence[float]) -> str:
    """How near the encoder came to choosing a position whose box is on the place; empty where it chooses none."""
    proposed = view.proposed()
    if proposed is None:
        return ""
    boxes, num_queries = proposed
    overlaps = iou(boxes, boxes.new_tensor(box))[0]
    near = torch.nonzero(overlaps >= ENDED)
    if not len(near):
        return "; nor does the encoder propose a box there"
    first = f"number {int(near[0]) + 1} of the encoder's {len(boxes)} proposals"
    return f"; {first} is the first there, and the best {num_queries} start"
