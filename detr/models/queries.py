"""Query selection of two-stage models: the best-scored positions of the memory become queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detr.layers.position import anchors, precise
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


class QuerySelection(nn.Module):
    """RT-DETR's: content and box both come from the selected position (Zhao et al. 2024, section 4.3)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.score_head = nn.Linear(channels, num_classes)
        self.box_head = MLP(channels, channels, 4, 3)

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
        content = _pick(embedding, positions)
        boxes = precise(self.box_head(content)) + places[positions]
        proposals = Predictions(_pick(scores, positions), boxes.sigmoid())
        return Queries(content.detach(), boxes.detach(), proposals, positions)


def _pick(rows: Tensor, positions: Tensor) -> Tensor:
    """[B, S, D], [B, Q] -> [B, Q, D]"""
    return rows.gather(1, positions[..., None].expand(-1, -1, rows.shape[-1]))
