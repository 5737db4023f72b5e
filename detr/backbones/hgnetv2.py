"""HGNetv2 (PP-HGNetV2 of PaddleClas): what all convolutions of a block give out is kept, joined and mixed."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from detr.config import Config
from detr.layers.conv import AffineReLU, ConvNorm


class StageSize(NamedTuple):
    inner: int  # channels of the convolutions within a block
    outer: int  # of what a block gives out
    blocks: int
    light: bool  # a 1x1 and a depthwise convolution in place of a full one
    kernel: int
    layers: int  # convolutions of a block


class Size(NamedTuple):
    stem: tuple[int, int]  # channels within and out
    stages: tuple[StageSize, ...]


def _stages(
    inner: tuple[int, ...], outer: tuple[int, ...], blocks: tuple[int, ...], layers: int, kernel: int = 5
) -> tuple[StageSize, ...]:
    """The first two stages are made of full 3x3 convolutions, the others of light ones."""
    return tuple(
        StageSize(a, b, count, level > 1, kernel if level > 1 else 3, layers)
        for level, (a, b, count) in enumerate(zip(inner, outer, blocks, strict=True))
    )


_WIDE = (128, 512, 1024, 2048)
_B4 = Size((32, 48), _stages((48, 96, 192, 384), _WIDE, (1, 1, 3, 1), 6))
_B5 = Size((32, 64), _stages((64, 128, 256, 512), _WIDE, (1, 2, 5, 2), 6))
_B6 = Size((48, 96), _stages((96, 192, 384, 768), (192, 512, 1024, 2048), (2, 3, 6, 3), 6))
SIZES = {
    "Atto": Size((16, 16), _stages((16, 32, 64), (64, 256, 256), (1, 1, 1), 3, kernel=3)),
    "Femto": Size((16, 16), _stages((16, 32, 64), (64, 256, 512), (1, 1, 1), 3)),
    "Pico": Size((16, 16), _stages((16, 32, 64), (64, 256, 512), (1, 1, 2), 3)),
    "B0": Size((16, 16), _stages((16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3)),
    "B1": Size((24, 32), _stages((32, 48, 96, 192), (64, 256, 512, 1024), (1, 1, 2, 1), 3)),
    "B2": Size((24, 32), _stages((32, 64, 128, 256), (96, 384, 768, 1536), (1, 1, 3, 1), 4)),
    "B3": Size((24, 32), _stages((32, 64, 128, 256), _WIDE, (1, 1, 3, 1), 5)),
    "B4": _B4,
    "B5": _B5,
    "B6": _B6,
    "L": _B4,  # the names that PaddleDetection's RT-DETR has for them
    "X": _B5,
    "H": _B6,
}


class HGNetv2Config(Config):
    kind: Literal["hgnetv2"] = "hgnetv2"
    size: Literal["Atto", "Femto", "Pico", "B0", "B1", "B2", "B3", "B4", "B5", "B6", "L", "X", "H"] = "B4"
    affine: bool = False  # two learned numbers scale and shift what every activation gives out
    stages: tuple[Literal[1, 2, 3, 4], ...] = Field(default=(2, 3, 4), min_length=1)  # whose maps are given out
    frozen_norms: bool = False  # every norm is a fixed scale and shift
    frozen_stages: int = Field(default=0, ge=0, le=5)  # 1: the stem doesn't learn, 2: nor the first stage, ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the levels given out."""
        return tuple(SIZES[self.size].stages[stage - 1].outer for stage in self.stages)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels given out."""
        return tuple(2 ** (stage + 1) for stage in self.stages)

    @model_validator(mode="after")
    def _fits(self) -> HGNetv2Config:
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages {list(self.stages)}: expected each once, fine to coarse")
        if max(self.stages) > len(SIZES[self.size].stages):
            raise ValueError(f"stages {list(self.stages)}: {self.size} has {len(SIZES[self.size].stages)}")
        return self


class HGNetv2(nn.Module):
    """Images [B, C, h, w] -> a map [B, C_l, h_l, w_l] for each of `config.stages`; sizes are rounded up."""

    def __init__(self, config: HGNetv2Config, image_channels: int = 3) -> None:
        super().__init__()
        size, make = SIZES[config.size], _Maker(config.affine, config.frozen_norms)
        self.given_out = config.stages
        self.stem = Stem(image_channels, *size.stem, make)
        stages, channels = [], size.stem[1]
        for level, stage in enumerate(size.stages[: max(config.stages)]):
            stages.append(Stage(channels, stage, make, shrink=level > 0))
            channels = stage.outer
        self.stages = nn.ModuleList(stages)
        for part in [self.stem, *self.stages][: config.frozen_stages]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[number - 1] for number in self.given_out)


class _Maker(NamedTuple):
    """How the convolutions of one network are made."""

    affine: bool
    frozen_norm: bool

    def __call__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> ConvNorm:
        activation = (AffineReLU() if self.affine else nn.ReLU()) if active else None
        return ConvNorm(
            channels_in,
            channels_out,
            kernel=kernel,
            stride=stride,
            groups=groups,
            activation=activation,
            frozen_norm=self.frozen_norm,
        )


class Stem(nn.Module):
    """To a quarter of the size: a pool beside two convolutions, between two that shrink."""

    def __init__(self, image_channels: int, inner: int, outer: int, make: _Maker) -> None:
        super().__init__()
        self.conv1 = make(image_channels, inner, kernel=3, stride=2)
        self.conv2a = make(inner, inner // 2, kernel=2)
        self.conv2b = make(inner // 2, inner, kernel=2)
        self.pool = nn.MaxPool2d(2, stride=1)
        self.conv3 = make(2 * inner, inner, kernel=3, stride=2)
        self.conv4 = make(inner, outer)

    def forward(self, images: Tensor) -> Tensor:
        x = _one_more(self.conv1(images))
        side = self.conv2b(_one_more(self.conv2a(x)))
        return self.conv4(self.conv3(torch.cat([self.pool(x), side], 1)))


class Stage(nn.Module):
    def __init__(self, channels: int, size: StageSize, make: _Maker, *, shrink: bool) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if shrink:
            self.downsample = make(channels, channels, kernel=3, stride=2, groups=channels, active=False)
        self.blocks = nn.Sequential(
            *[Block(size.outer if index else channels, size, make, residual=index > 0) for index in range(size.blocks)]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Block(nn.Module):
    """The input and what each convolution gives out, joined, and mixed by two 1x1 convolutions."""

    def __init__(self, channels: int, size: StageSize, make: _Maker, *, residual: bool) -> None:
        super().__init__()
        widths = [channels, *[size.inner] * size.layers]
        self.layers = nn.ModuleList(
            nn.Sequential(make(a, b, active=False), make(b, b, kernel=size.kernel, groups=b))
            if size.light
            else make(a, b, kernel=size.kernel)
            for a, b in pairwise(widths)
        )
        self.squeeze = make(sum(widths), size.outer // 2)
        self.excite = make(size.outer // 2, size.outer)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(seen[-1]))
        mixed = self.excite(self.squeeze(torch.cat(seen, 1)))
        return mixed + x if self.residual else mixed


def _one_more(x: Tensor) -> Tensor:
    """A row and a column of zeros at the end, so that a 2x2 window keeps the size."""
    return F.pad(x, (0, 1, 0, 1))
