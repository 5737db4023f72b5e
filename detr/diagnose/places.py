"""Where the queries start and where they end: why nothing was found where an object is.

A two-stage model starts its queries at boxes that the encoder proposes. An object that none of them overlaps was lost
by the selection, and no decoder could have found it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr.data.annotations import Annotations
from detr.evaluation.outcomes import ENOUGH
from detr.evaluation.overlaps import overlapping
from detr.explain.place import STARTED
from detr.models.deformable_detr import Start
from detr.models.proposals import Proposals
from detr.models.queries import Queries
from detr.records import Output
from detr.runtime.distributed import gathered
from detr.runtime.runner import Runner, TorchRunner

WHY = ("no query started there", "no query ended there", "scored too low")
NOT_STARTED, NOT_ENDED, TOO_LOW = range(len(WHY))


@dataclass(frozen=True, eq=False)
class Places:
    """For each annotation [A]; NaN where no image of it was seen, 0 where nothing overlaps it."""

    start: NDArray[np.float64]  # highest IoU with a box that a query started from
    end: NDArray[np.float64]  # highest IoU with a box of the last layer, whatever it says
    score: NDArray[np.float64]  # best score for the object's class of a query that ends on it

    def why_missed(self) -> NDArray[np.int64]:
        """[A] the index of `WHY`, for objects that were missed."""
        ended = np.where(self.end < ENOUGH, NOT_ENDED, TOO_LOW)
        return np.where(self.start < STARTED, NOT_STARTED, ended)


class PlaceWatch:
    """Looks on as a network is evaluated: `validate(..., watch=watch)`, then `watch.places()`."""

    def __init__(self, runner: TorchRunner, annotations: Annotations) -> None:
        self._scoring, self._annotations = runner.scoring, annotations
        self._index = {id: index for index, id in enumerate(annotations.image_ids)}
        by_name = runner.classes.matches_by_name(annotations.classes)
        nameless = len(by_name) == 0 and len(runner.classes) == len(annotations.classes)
        pairs = {k: k for k in range(len(runner.classes))} if nameless else by_name
        self._model_class = np.full(len(annotations.classes), -1)
        self._model_class[list(pairs.values())] = list(pairs)
        self._rows_by_image = np.argsort(annotations.image_indices, kind="stable")
        self._starts_of_images = np.searchsorted(
            annotations.image_indices[self._rows_by_image], np.arange(len(annotations.image_ids) + 1)
        )
        self._seen = Places(*(np.full(len(annotations.labels), np.nan) for _ in range(3)))
        self._boxes: Tensor | None = None
        self._hook = runner.network.queries.register_forward_hook(self._note)

    def _note(self, module: Any, given: Any, answer: Queries | Proposals | Start) -> None:
        self._boxes = starting_boxes(answer)

    def __call__(self, ids: Sequence[int | str], sizes: Sequence[tuple[int, int]], output: Output) -> None:
        assert self._boxes is not None
        scores = self._scoring(output.layers[-1].logits).cpu().numpy()
        ends = output.layers[-1].boxes.float().cpu().numpy()
        starts = self._boxes.float().cpu().numpy()
        for place, (id, size) in enumerate(zip(ids, sizes, strict=True)):
            index = self._index[id]
            rows = self._rows_by_image[self._starts_of_images[index] : self._starts_of_images[index + 1]]
            if len(rows):
                self._look(rows, _in_pixels(starts[place], size), _in_pixels(ends[place], size), scores[place])

    def _look(
        self, rows: NDArray[np.int64], starts: NDArray[np.float64], ends: NDArray[np.float64], scores: NDArray[Any]
    ) -> None:
        boxes, here = self._annotations.boxes[rows], np.zeros(len(rows), np.int64)
        seen = self._seen
        for kept in (seen.start, seen.end, seen.score):
            kept[rows] = 0
        near = overlapping(boxes, here, starts, np.zeros(len(starts), np.int64))
        np.maximum.at(seen.start, rows[near.first], near.iou)
        near = overlapping(boxes, here, ends, np.zeros(len(ends), np.int64))
        np.maximum.at(seen.end, rows[near.first], near.iou)
        on = near.where(near.iou >= ENOUGH)
        classes = self._model_class[self._annotations.labels[rows[on.first]]]
        np.maximum.at(seen.score, rows[on.first], np.where(classes >= 0, scores[on.second, classes], 0))

    def places(self) -> Places:
        """What was seen, by all processes together."""
        self._hook.remove()
        mine = np.stack((self._seen.start, self._seen.end, self._seen.score))
        return Places(*np.fmax.reduce(gathered(mine)))


def unwatchable(runner: Runner, *, sliced: bool) -> str | None:
    """Why it can't be seen where this model's queries start; None where it can."""
    if sliced:
        return "images are looked at in tiles"
    if not isinstance(runner, TorchRunner) or not hasattr(runner.network, "queries"):
        return "an exported model gives boxes only"
    if runner.compile:
        return "the network is compiled"
    config = runner.config
    if config.arch == "detr" or (config.arch == "deformable_detr" and not config.two_stage):
        return "this model's queries are learned, and start nowhere in particular"
    return None


def starting_boxes(answer: Queries | Proposals | Start) -> Tensor:
    """[B, Q, 4] cxcywh in [0, 1]; of no size where nothing can be proposed."""
    if isinstance(answer, Start):
        return answer.boxes
    logits = answer.boxes if isinstance(answer, Queries) else answer.chosen.boxes
    return torch.where(logits.isfinite().all(-1, keepdim=True), logits.sigmoid(), 0.0)


def _in_pixels(boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """cxcywh in [0, 1] -> xywh."""
    height, width = size
    boxes = boxes.astype(np.float64) * (width, height, width, height)
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), 1)
