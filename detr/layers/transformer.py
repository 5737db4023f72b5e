"""Feed-forward parts, and the post-norm layers of a dense encoder and decoder."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from detr.layers.attention import CrossAttention, SelfAttention

Activation = Literal["relu", "gelu", "silu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
"""By the words of the recipes."""


class MLP(nn.Module):
    """Linear layers with an activation between them, ReLU unless told."""

    def __init__(
        self, channels_in: int, hidden: int, channels_out: int, num_layers: int, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        widths = [channels_in, *[hidden] * (num_layers - 1), channels_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation or nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[..., channels_in] -> [..., channels_out]"""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, ReLU unless told."""

    def __init__(
        self, channels: int, hidden: int, activation: nn.Module | None = None, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.activation = activation or nn.ReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class SwiGLU(nn.Module):
    """Feed-forward with a gate: silu(a) * b, both linear in the input (Shazeer 2020)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(channels, 2 * hidden)  # rows: the gate's, the gated
        self.project_out = nn.Linear(hidden, channels)
        for linear in (self.project_in, self.project_out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        gate, gated = self.project_in(x).chunk(2, -1)
        return self.project_out(F.silu(gate) * gated)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with its residual and the norm after it.

    `dropout` is of the attention weights, of the hidden features and of both branches before their residual.
    """

    def __init__(
        self, channels: int, heads: int, hidden: int, activation: nn.Module | None = None, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, hidden, activation, dropout=dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, S, D] -> [B, S, D]; mask as in `SelfAttention`."""
        x = self.norm1(x + self.dropout(self.self_attention(x, position, mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class DecoderLayer(nn.Module):
    """Self-attention among the queries, attention to all of the memory, feed-forward; norm after each.

    `dropout` as in `EncoderLayer`.
    """

    def __init__(self, channels: int, heads: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attention = CrossAttention(channels, heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, hidden, dropout=dropout)
        self.norm3 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """x, position [B, Q, D]; keys, values [B, S, D]; mask [B, 1, S] as in `CrossAttention`, of the memory."""
        x = self.norm1(x + self.dropout(self.self_attention(x, position)))
        x = self.norm2(x + self.dropout(self.cross_attention(x + position, keys, values, mask)))
        return self.norm3(x + self.dropout(self.feed_forward(x)))
