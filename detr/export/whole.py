"""All that an exported file computes, as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr.export.about import About
from detr.export.preprocessing import Preparation
from detr.export.stages import borders
from detr.models import Network
from detr.models.postprocess import Scoring, best
from detr.records import Predictions


class Whole(nn.Module):
    """The deployed network, with what `about.form` says before and after it."""

    def __init__(self, network: Network, about: About) -> None:
        super().__init__()
        form = about.form
        self.preparation = Preparation(about.config.input, about.size) if form.preprocessing else None
        self.dtype = torch.float16 if form.half else torch.float32
        self.network = network.to(self.dtype)
        self.postprocessing = None if form.max_det is None else Postprocessing(about.scoring, form.max_det)

    def forward(self, images: Tensor, padding: Tensor | None = None, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """What `Form` says, then what the stages hand on, by name."""
        seen: dict[str, Tensor] = {}
        if self.preparation is not None:
            sides = [torch.scalar_tensor(side, dtype=torch.int64) for side in images.shape[1:3]]
            sizes = torch.stack(sides).expand(images.shape[0], -1)
            images, padding = self.preparation(images, seen)
        with borders(self.network) as between:
            last = self.network(images.to(self.dtype), padding).layers[-1]
        seen |= {name: _plain(value) for name, value in between.items()}
        logits, boxes = _plain(last.logits), _plain(last.boxes)
        if self.postprocessing is None:
            return {"logits": logits, "boxes": boxes} | seen
        assert sizes is not None
        boxes_there, scores, labels = self.postprocessing(logits, boxes, sizes)
        answers = {"scores": scores, "labels": labels, "boxes": boxes_there}
        return answers | seen | {"decoder.logits": logits, "decoder.boxes": boxes}


class Postprocessing(nn.Module):
    """The best pairs of query and class, their boxes in pixels; they may reach over the border."""

    def __init__(self, scoring: Scoring, max_det: int) -> None:
        super().__init__()
        self.scoring, self.max_det = scoring, max_det

    def forward(self, logits: Tensor, boxes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return best(Predictions(logits, boxes), sizes, scoring=self.scoring, max_det=self.max_det)


def _plain(values: Tensor) -> Tensor:
    return values.to(torch.float32) if values.is_floating_point() else values
