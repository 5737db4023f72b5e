"""Query selection of two-stage models: the best-scored positions of the memory become queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detr.layers.position import anchors, precise, shrunk
from detr.layers.transformer import MLP
from detr.records import Predictions

Shapes = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Memory:
    """What the decoder looks at."""

    tokens: Tensor  # [B, S, D], the levels one after the other, each row by row
    shapes: Shapes  # (h, w) of each level
    padding: Tensor | None = None  # [B, S] True where there is no image


@dataclass(frozen=True, eq=False)
class Queries:
    """Where the decoder starts."""

    content: Tensor  # [B, Q, D], without gradient
    boxes: Tensor  # [B, Q, 4] logits of cxcywh, without gradient; infinite for the anchors on the border
    proposals: Predictions  # the same with gradient, for the encoder's own losses
    positions: Tensor  # [B, Q] index into S


def memory_of(maps: Sequence[Tensor], padding: Tensor | None) -> Memory:
    """maps [B, D, h, w] fine to coarse; padding [B, H, W] of the images, or None."""
    tokens = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1)
    shapes = tuple((each.shape[2], each.shape[3]) for each in maps)
    masks = [shrunk(padding, like=each) for each in maps]
    levels = [mask.flatten(1) for mask in masks if mask is not None]
    return Memory(tokens, shapes, torch.cat(levels, 1) if levels else None)


class QuerySelection(nn.Module):
    """RT-DETR's: content and box both come from the selected position (Zhao et al. 2024, section 4.3).

    Without `embedded` (DEIMv2) the memory is taken as it is.
    """

    def __init__(
        self, channels: int, num_classes: int, activation: nn.Module | None = None, *, embedded: bool = True
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, channels) if embedded else nn.Identity()
        self.norm = nn.LayerNorm(channels) if embedded else nn.Identity()
        self.score_head = nn.Linear(channels, num_classes)
        self.box_head = MLP(channels, channels, 4, 3, activation)

    def forward(self, memory: Memory, num_queries: int) -> Queries:
        """The `num_queries` best positions, best first; all of them where the image has fewer."""
        places, valid = anchors(memory.shapes, like=memory.tokens)
        tokens = memory.tokens.contiguous()  # once, not in each of the layers
        if valid is not None:
            tokens = tokens * valid
        if memory.padding is not None:
            tokens = tokens.masked_fill(memory.padding[..., None], 0)
        embedding = self.norm(self.embed(tokens))
        scores = self.score_head(embedding)
        ranking = scores.amax(-1)
        if memory.padding is not None:
            ranking = ranking.masked_fill(memory.padding, -torch.inf)
        positions = ranking.topk(min(num_queries, ranking.shape[1]), dim=1).indices
        content = picked(embedding, positions)
        boxes = precise(self.box_head(content)) + places[positions]
        proposals = Predictions(picked(scores, positions), boxes.sigmoid())
        return Queries(content.detach(), boxes.detach(), proposals, positions)


def picked(rows: Tensor, positions: Tensor) -> Tensor:
    """The rows at `positions`: [B, S, D], [B, Q] -> [B, Q, D]"""
    return rows.gather(1, positions[..., None].expand(-1, -1, rows.shape[-1]))
