"""The hybrid encoder of RT-DETR (Zhao et al. 2024, section 4.2).

Attention within the coarsest level only (AIFI), then convolutions across levels, down and up again (CCFM).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detr.config import Config
from detr.layers.attention import may_look
from detr.layers.conv import ConvNorm, RepVGGBlock
from detr.layers.position import sine_table
from detr.layers.transformer import EncoderLayer


class HybridEncoderConfig(Config):
    channels: int = Field(default=256, ge=8, multiple_of=4)
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=1024, ge=1)  # of the feed-forward part of the attention layers
    num_layers: int = Field(default=1, ge=0)  # attention layers on the coarsest level
    expansion: float = Field(default=1.0, gt=0)  # width of the fusion blocks
    depth: float = Field(default=1.0, ge=0)  # times three convolutions in each fusion block


class HybridEncoder(nn.Module):
    """Maps, fine to coarse, of the backbone's channels -> maps of the same sizes with `config.channels`."""

    def __init__(self, config: HybridEncoderConfig, channels_in: Sequence[int]) -> None:
        super().__init__()
        channels, steps = config.channels, len(channels_in) - 1
        self.projections = nn.ModuleList(ConvNorm(each, channels) for each in channels_in)
        self.attention = nn.ModuleList(
            EncoderLayer(channels, config.heads, config.hidden, nn.GELU()) for _ in range(config.num_layers)
        )
        self.laterals = nn.ModuleList(ConvNorm(channels, channels, activation=nn.SiLU()) for _ in range(steps))
        self.top_down = nn.ModuleList(FusionBlock(channels, config.expansion, config.depth) for _ in range(steps))
        self.downsamples = nn.ModuleList(
            ConvNorm(channels, channels, kernel=3, stride=2, activation=nn.SiLU()) for _ in range(steps)
        )
        self.bottom_up = nn.ModuleList(FusionBlock(channels, config.expansion, config.depth) for _ in range(steps))

    def forward(self, features: Sequence[Tensor], padding: Tensor | None = None) -> list[Tensor]:
        """padding [B, h, w] of the coarsest level, or None."""
        maps = [project(each) for project, each in zip(self.projections, features, strict=True)]
        maps[-1] = self._attend(maps[-1], padding)
        return self._fuse(maps)

    def _attend(self, x: Tensor, padding: Tensor | None) -> Tensor:
        height, width = x.shape[-2:]
        position = sine_table(height, width, x.shape[1], like=x)
        mask = None if padding is None else may_look(padding.flatten(1))
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.attention:
            tokens = layer(tokens, position, mask)
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def _fuse(self, maps: list[Tensor]) -> list[Tensor]:
        coarse = maps[-1]
        descended = []
        for finer, lateral, block in zip(reversed(maps[:-1]), self.laterals, self.top_down, strict=True):
            coarse = lateral(coarse)
            descended.append(coarse)
            enlarged = F.interpolate(coarse, size=finer.shape[-2:], mode="nearest")
            coarse = block(torch.cat([enlarged, finer], 1))
        result = [coarse]
        for lateral_map, downsample, block in zip(reversed(descended), self.downsamples, self.bottom_up, strict=True):
            result.append(block(torch.cat([downsample(result[-1]), lateral_map], 1)))
        return result


class FusionBlock(nn.Module):
    """Two concatenated maps -> one: RepVGG blocks beside a 1x1 convolution (a CSP layer)."""

    def __init__(self, channels: int, expansion: float, depth: float) -> None:
        super().__init__()
        inner = int(channels * expansion)
        self.main = ConvNorm(2 * channels, inner, activation=nn.SiLU())
        self.side = ConvNorm(2 * channels, inner, activation=nn.SiLU())
        self.blocks = nn.Sequential(*[RepVGGBlock(inner, nn.SiLU()) for _ in range(round(3 * depth))])
        self.out = ConvNorm(inner, channels, activation=nn.SiLU()) if inner != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.main(x)) + self.side(x))
