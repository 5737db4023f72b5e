"""Blocks that mix maps in the neck: cross-stage partial (CSP), aggregated (ELAN), and a lean halving of the size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from detr.layers.conv import ConvNorm, RepVGGBlock
from detr.layers.merging import MergingConv

Entry = int | tuple[int, int]  # channels of the map that comes in, or of two that are merged


class CSPBlock(nn.Module):
    """RepVGG blocks beside a 1x1 convolution, added (Wang et al. 2020; RT-DETR's fusion block)."""

    def __init__(self, channels_in: Entry, inner: int, channels_out: int, num_blocks: int) -> None:
        super().__init__()
        self.main = _entry(channels_in, inner)
        self.side = _entry(channels_in, inner)
        self.blocks = repvgg_blocks(inner, num_blocks)
        self.out = ConvNorm(inner, channels_out, activation=nn.SiLU()) if inner != channels_out else nn.Identity()

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        """x: a map, or two where `channels_in` says so (`MergingConv`)."""
        return self.out(self.blocks(self.main(x)) + self.side(x))


class JointCSPBlock(nn.Module):
    """A CSP block whose two 1x1 convolutions, without one after them, are one of twice the width (DEIMv2)."""

    def __init__(self, channels_in: int, inner: int, num_blocks: int) -> None:
        super().__init__()
        self.both = ConvNorm(channels_in, 2 * inner, activation=nn.SiLU())
        self.blocks = repvgg_blocks(inner, num_blocks)

    def forward(self, x: Tensor) -> Tensor:
        side, main = self.both(x).chunk(2, 1)
        return side + self.blocks(main)


class ELANBlock(nn.Module):
    """Half of the input and what two CSP blocks make of it, one after the other, joined with the other half.

    Efficient layer aggregation (Wang et al. 2022, 2024: RepNCSPELAN4) as D-FINE has it; `block` makes a CSP block of
    (channels in, channels out). Without `convolutions` (DEIMv2) there is no 3x3 convolution after the CSP blocks.
    """

    def __init__(
        self,
        channels_in: Entry,
        inner: int,
        channels_out: int,
        *,
        block: Callable[[int, int], nn.Module],
        convolutions: bool = True,
    ) -> None:
        super().__init__()
        self.split = _entry(channels_in, 2 * channels_out)

        def step(channels: int) -> nn.Module:
            if not convolutions:
                return nn.Sequential(block(channels, inner))
            return nn.Sequential(block(channels, inner), ConvNorm(inner, inner, kernel=3, activation=nn.SiLU()))

        self.first, self.second = step(channels_out), step(inner)
        self.out = ConvNorm(2 * channels_out + 2 * inner, channels_out, activation=nn.SiLU())

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        """x: a map, or two where `channels_in` says so (`MergingConv`)."""
        kept, taken = self.split(x).chunk(2, 1)
        first = self.first(taken)
        return self.out(torch.cat([kept, taken, first, self.second(first)], 1))


class LeanDownsample(nn.Module):
    """Half the size: channels are mixed by a 1x1 convolution, positions by a depthwise one (Wang et al. 2024)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = ConvNorm(channels, channels)
        self.shrink = ConvNorm(channels, channels, kernel=3, stride=2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.shrink(self.mix(x))


def _entry(channels_in: Entry, channels_out: int) -> ConvNorm:
    if isinstance(channels_in, int):
        return ConvNorm(channels_in, channels_out, activation=nn.SiLU())
    return MergingConv(channels_in, channels_out, activation=nn.SiLU())


def repvgg_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[RepVGGBlock(channels, nn.SiLU()) for _ in range(count)])
