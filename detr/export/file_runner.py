"""What exported files of every kind are to whoever runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from detr.boxes import xyxy_to_cxcywh
from detr.export.about import About
from detr.export.feeding import Feeds, fed
from detr.models.postprocess import Scoring
from detr.records import Output, Predictions

_NEVER = -100.0  # the logit of a class that wasn't said: its score is 0


class FileRunner(ABC):
    """An exported file as a `Runner`: prepared images in, the answer out, whatever `about.form` says of the file.

    Of a file that prepares pictures itself the colours of `config.input` are left as they are: it sees what is resized.
    One that gives detections answers with as many queries as it gives of these, each of one class.
    """

    shows_stages = True
    """Whether `borders` has something to give."""
    most_images: int | None = None
    """At once, where there is a limit."""

    def __init__(self, about: About) -> None:
        self.about = about
        self.config, self.classes, self.scoring = about.config, about.classes, about.scoring
        if about.form.preprocessing:
            input = about.config.input.model_copy(update={"mean": None, "std": None})
            self.config = about.config.model_copy(update={"input": input})
        if about.form.max_det is not None:
            self.scoring = Scoring()
        self.device = torch.device("cpu")

    @property
    def number(self) -> str:
        """What it computes in: `float32`"""
        return "int8" if self.about.int8 else "float16" if self.about.form.half else "float32"

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def answers(self, feeds: Feeds) -> dict[str, Tensor]:
        """What the file gives, by name."""

    @abstractmethod
    def borders(self, feeds: Feeds) -> dict[str, Tensor]:
        """What goes from one of its stages to the next, by the names of `detr.export.stages`, as far as it is there."""

    def __call__(self, images: Tensor, padding: Tensor | None = None) -> Output:
        one_by_one = not self.about.form.open_batch or (padding is not None and self.about.form.preprocessing)
        most = 1 if one_by_one else self.most_images or len(images)
        if len(images) > most:
            given = images.split(most)
            rows = [None] * len(given) if padding is None else padding.split(most)
            parts = [self._answer(some, row) for some, row in zip(given, rows, strict=True)]
            logits, boxes = (torch.cat(each) for each in zip(*parts, strict=True))
        else:
            logits, boxes = self._answer(images, padding)
        return Output((Predictions(logits, boxes),))

    def _answer(self, images: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        form = self.about.form
        if form.preprocessing and padding is not None:
            images, padding = _cropped(images, padding), None
        given = self.answers(fed(self.about, images, padding))
        if form.max_det is None:
            return given["logits"], given["boxes"]
        boxes = given["boxes"]
        if form.preprocessing:
            height, width = images.shape[-2:]
            boxes = boxes / boxes.new_tensor([width, height, width, height])
        return _said(given["scores"], given["labels"], len(self.classes)), xyxy_to_cxcywh(boxes)


def _cropped(images: Tensor, padding: Tensor) -> Tensor:
    """One image without its padding."""
    there = ~padding[0]
    return images[:, :, : int(there[:, 0].sum()), : int(there[0].sum())]


def _said(scores: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """[B, K] scores and labels -> [B, K, C] logits, in float64, which gives the same scores back."""
    logits = torch.full((*scores.shape, num_classes), _NEVER, dtype=torch.float64)
    return logits.scatter(-1, labels[..., None], scores.double().clamp(1e-40, 1 - 1e-12).logit()[..., None])


def tensors(arrays: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
