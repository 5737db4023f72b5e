"""The encoder of DEIMv2's smallest sizes (Huang et al. 2025): one level in, two out, and no attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detr.config import Config
from detr.layers.conv import ConvNorm
from detr.layers.fusion import ELANBlock, JointCSPBlock


class LiteEncoderConfig(Config):
    kind: Literal["lite"] = "lite"
    channels: int = Field(default=64, ge=8)
    expansion: float = Field(default=0.34, gt=0)  # width of the fusion blocks
    depth: float = Field(default=0.5, ge=0)  # times three convolutions in each fusion block


class LiteEncoder(nn.Module):
    """A map of the backbone -> maps of its size and of half of it, with `config.channels`."""

    def __init__(self, config: LiteEncoderConfig, channels_in: Sequence[int]) -> None:
        super().__init__()
        (finest,), channels = channels_in, config.channels
        self.projections = nn.ModuleList([ConvNorm(finest, channels)])
        self.coarsen = PooledConv(channels)
        self.spread = ConvNorm(channels, channels, activation=nn.SiLU())
        self.top_down = _fusion(config)
        self.downsample = PooledConv(channels)
        self.bottom_up = _fusion(config)

    def forward(self, features: Sequence[Tensor], padding: Tensor | None = None) -> list[Tensor]:
        """padding [B, h, w] of the level, or None."""
        (x,) = (project(each) for project, each in zip(self.projections, features, strict=True))
        coarse = self.coarsen(x)
        coarse = self.spread(coarse + _mean(coarse, None if padding is None else padding[:, ::2, ::2]))
        fine = self.top_down(x + F.interpolate(coarse, size=x.shape[-2:], mode="nearest"))
        return [fine, self.bottom_up(coarse + self.downsample(fine))]


class PooledConv(ConvNorm):
    """A 1x1 convolution after an average pool that halves the size, rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, activation=nn.SiLU())
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))


def _fusion(config: LiteEncoderConfig) -> nn.Module:
    channels, num_blocks = config.channels, round(3 * config.depth)
    inner = round(config.expansion * channels // 2)
    return ELANBlock(channels, inner, channels, block=lambda a, b: JointCSPBlock(a, b, num_blocks))


def _mean(x: Tensor, padding: Tensor | None) -> Tensor:
    """[B, D, h, w] -> [B, D, 1, 1], of where there is an image."""
    if padding is None:
        return x.mean((2, 3), keepdim=True)
    there = (~padding | padding.all((1, 2), keepdim=True))[:, None]
    return (x * there).sum((2, 3), keepdim=True) / there.sum((2, 3), keepdim=True)
