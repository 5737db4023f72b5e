"""Feed-forward parts and the post-norm encoder layer."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from detr.layers.attention import SelfAttention


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, channels_in: int, hidden: int, channels_out: int, num_layers: int) -> None:
        super().__init__()
        widths = [channels_in, *[hidden] * (num_layers - 1), channels_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    def __init__(self, channels: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.activation(self.linear1(x)))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with its residual and the norm after it."""

    def __init__(self, channels: int, heads: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, hidden, activation)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, S, D] -> [B, S, D]; mask as in `SelfAttention`."""
        x = self.norm1(x + self.self_attention(x, position, mask))
        return self.norm2(x + self.feed_forward(x))
