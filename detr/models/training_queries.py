"""The queries of a training step: noised targets beside those to be matched, and their predictions apart again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detr.models.denoising import ContrastiveDenoising, Noised
from detr.records import Denoising, Edges, Output, Predictions, Target


@dataclass(frozen=True, eq=False)
class TrainingQueries:
    """What the decoder starts from; the first of them are noised targets."""

    content: Tensor  # [B, K + Q, D]
    boxes: Tensor  # [B, K + Q, 4] logits of cxcywh
    mask: Tensor | None  # [K + Q, K + Q] for the attention among them
    noised: Noised | None

    def output(
        self, layers: tuple[Predictions, ...], proposals: Predictions | None, start: Predictions | None = None
    ) -> Output:
        """What a network gives out of what its decoder said of all of them."""
        if self.noised is None:
            return Output(layers, proposals, start=start)
        count = self.noised.labels.shape[1]
        noised, others = slice(None, count), slice(count, None)
        return Output(
            tuple(_some(each, others) for each in layers),
            proposals,
            Denoising(
                tuple(_some(each, noised) for each in layers),
                self.noised.queries,
                self.noised.targets,
                self.noised.num_groups,
                None if start is None else _some(start, noised),
            ),
            None if start is None else _some(start, others),
        )


def training_queries(
    content: Tensor, boxes: Tensor, denoising: ContrastiveDenoising | None, targets: Sequence[Target] | None
) -> TrainingQueries:
    """content [B, Q, D] and boxes [B, Q, 4] logits of the queries that will be matched."""
    if denoising is None:
        return TrainingQueries(content, boxes, None, None)
    extra = denoising(targets or (), num_matching=content.shape[1])
    if extra is None:
        return TrainingQueries(content + denoising.unused(), boxes, None, None)
    noised_content, noised_boxes, mask, noised = extra
    content = torch.cat([noised_content.to(content.dtype), content], 1)
    return TrainingQueries(content, torch.cat([noised_boxes.to(boxes.dtype), boxes], 1), mask, noised)


def _some(predictions: Predictions, queries: slice) -> Predictions:
    edges = predictions.edges
    if edges is not None:
        edges = Edges(edges.logits[:, queries], edges.start[:, queries])
    return Predictions(predictions.logits[:, queries], predictions.boxes[:, queries], edges)
