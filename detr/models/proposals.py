"""Two-stage queries (Zhu et al. 2021, appendix A.4): every position proposes a box, the best boxes become queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from detr.layers.position import anchors, precise
from detr.layers.transformer import MLP
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.queries import Memory, picked
from detr.records import Predictions

RankedBy = Literal["first slot", "best slot"]


@dataclass(frozen=True, eq=False)
class Proposals:
    """What the positions of the memory propose, and the best of it."""

    all: Predictions  # of all S positions, with gradient; logits of boxes, infinite where nothing can be proposed
    chosen: Predictions  # of the Q best, best first; likewise
    positions: Tensor  # [B, Q] index into S


class ProposalSelection(nn.Module):
    """Scores and boxes of every position, and the choice of the best ones.

    Padding and what lies on the border of its level count as empty positions, which all score alike; where there are
    few others some are chosen, and propose the box 1, 1, 1, 1, as officially.
    """

    def __init__(self, channels: int, num_slots: int, *, ranked_by: RankedBy) -> None:
        super().__init__()
        self.ranked_by = ranked_by
        self.embed = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.score_head = nn.Linear(channels, num_slots)
        self.box_head = MLP(channels, channels, 4, 3)
        spread([self.embed])
        start_scores([self.score_head])
        start_at_zero([self.box_head])

    def forward(self, memory: Memory, num_queries: int) -> Proposals:
        """The `num_queries` best; all of them where the image has fewer positions."""
        places, valid = anchors(memory.shapes, like=memory.tokens, padding=memory.padding)
        tokens = memory.tokens if valid is None else memory.tokens.masked_fill(~valid, 0)
        embedding = self.norm(self.embed(tokens))
        scores = self.score_head(embedding)
        boxes = precise(self.box_head(embedding)) + places
        ranking = scores[..., 0] if self.ranked_by == "first slot" else scores.amax(-1)
        positions = ranking.topk(min(num_queries, ranking.shape[1]), dim=1).indices
        chosen = Predictions(picked(scores, positions), picked(boxes, positions))
        return Proposals(Predictions(scores, boxes), chosen, positions)
