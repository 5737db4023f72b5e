"""Deformable attention (Zhu et al. 2021, section 4.1), with as many points on each level as one likes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from detr.layers.attention import SelfAttention, require_shared_evenly
from detr.layers.transformer import FeedForward
from detr.ops import deformable_attention

Method = Literal["bilinear", "discrete"]
LARGEST_HALF = 65504.0
"""What half precision can hold: the official clamp of a layer of RT-DETR and D-FINE."""


class DeformableAttention(nn.Module):
    """Each query looks at a few points around its box on every level.

    With `method="discrete"` (RT-DETRv2) the nearest position is read instead of interpolating, and the offsets stay as
    they are: no gradient reaches them. With `projected=False` (D-FINE) heads share the channels of the memory as it is.
    `points` is how many each head has on each level. UsageError where `channels` isn't a multiple of `heads`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        points: tuple[int, ...],
        *,
        method: Method = "bilinear",
        projected: bool = True,
    ) -> None:
        super().__init__()
        require_shared_evenly(channels, heads)
        self.heads, self.points, self.method = heads, points, method
        self.offsets = nn.Linear(channels, heads * sum(points) * 2)
        self.weights = nn.Linear(channels, heads * sum(points))
        self.project_value = nn.Linear(channels, channels) if projected else None
        self.project_out = nn.Linear(channels, channels) if projected else nn.Identity()
        self._initialise()
        if method == "discrete":
            self.offsets.requires_grad_(False)

    def forward(
        self, query: Tensor, boxes: Tensor, memory: Tensor, shapes: tuple[tuple[int, int], ...], padding: Tensor | None
    ) -> Tensor:
        """query [B, Q, D], boxes [B, Q, 4] cxcywh in [0, 1], memory [B, S, D], padding [B, S] or None -> [B, Q, D].

        Points [B, Q, 2] may stand in for boxes: then an offset of 1 is a position of the level, not half a side of the
        box over the number of points. [B, Q, L, 2 or 4] says where they are on each level by itself.
        """
        value = memory if self.project_value is None else self.project_value(memory)
        attended = deformable_attention(
            value.unflatten(-1, (self.heads, -1)),
            shapes,
            boxes,
            self.offsets(query).unflatten(-1, (self.heads, -1, 2)),
            self.weights(query).unflatten(-1, (self.heads, -1)),
            self.points,
            padding=padding,
            method=self.method,
        )
        return self.project_out(attended)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Point p of a head starts p steps away in the head's own direction."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1, count + 1) for count in self.points])
        nn.init.zeros_(self.offsets.weight)
        self.offsets.bias.copy_((directions[:, None] * steps[:, None]).flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for linear in (self.project_value, self.project_out):
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)


class DeformableDecoderLayer(nn.Module):
    """Self-attention among the queries, deformable attention to the image, feed-forward; norms after each.

    With `gated`, the image's part comes in by a `Gate`; `projected` as in `DeformableAttention`. `dropout` is of the
    attention weights and of each branch before its residual; the feed-forward part has its own of the hidden features.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        points: tuple[int, ...],
        *,
        method: Method = "bilinear",
        clamp: float | None = None,
        projected: bool = True,
        gated: bool = False,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        feed_forward: Callable[[int, int], nn.Module] = FeedForward,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout=dropout)
        self.norm1 = norm(channels)
        self.cross_attention = DeformableAttention(channels, heads, points, method=method, projected=projected)
        self.gate = Gate(channels, norm) if gated else None
        self.norm2 = nn.Identity() if gated else norm(channels)
        self.feed_forward = feed_forward(channels, hidden)
        self.norm3 = norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.clamp = math.inf if clamp is None else clamp

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        memory: Tensor,
        shapes: tuple[tuple[int, int], ...],
        *,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x, position [B, Q, D]; boxes and memory as in `DeformableAttention`; mask as in `SelfAttention`."""
        x = self.norm1(x + self.dropout(self.self_attention(x, position, mask)))
        attended = self.dropout(self.cross_attention(x + position, boxes, memory, shapes, padding))
        x = self.norm2(x + attended) if self.gate is None else self.gate(x, attended)
        x = x + self.dropout(self.feed_forward(x))
        if self.clamp < math.inf:
            x = x.clamp(-self.clamp, self.clamp)
        return self.norm3(x)


class DeformableEncoderLayer(nn.Module):
    """Deformable attention of the tokens to each other, feed-forward; norm after each.

    `dropout` is of the hidden features and of both branches before their residual.
    """

    def __init__(
        self, channels: int, heads: int, hidden: int, points: tuple[int, ...], *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, points)
        self.norm1 = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, hidden, dropout=dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        places: Tensor,
        shapes: tuple[tuple[int, int], ...],
        padding: Tensor | None = None,
    ) -> Tensor:
        """x, position [B, S, D]; places [B, S, 2] or [B, S, L, 2] of the tokens; else as in `DeformableAttention`."""
        x = self.norm1(x + self.dropout(self.attention(x + position, places, x, shapes, padding)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class Gate(nn.Module):
    """How much of each of two tensors goes on, by channel (Peng et al. 2024, "target gating layer")."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * channels, 2 * channels)
        self.norm = norm(channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Both [..., D] -> [..., D]; starts as the norm of half their sum."""
        shares = self.gate(torch.cat([x, other], -1)).sigmoid()
        mine, others = shares.chunk(2, -1)
        return self.norm(mine * x + others * other)
