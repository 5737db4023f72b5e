"""ResNet (He et al. 2016), as torchvision builds it ("b") and as ResNet-vd (He et al. 2019, figure 2; "d").

b has one 7x7 convolution in the stem and a strided 1x1 one in each shortcut that shrinks the map; d has three 3x3 ones
in the stem and an average pool before the shortcut's. In both, a bottleneck's stride is in its 3x3 convolution.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from detr.config import Config
from detr.layers.conv import ConvNorm

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}

Variant = Literal["b", "d"]


class ResNetConfig(Config):
    kind: Literal["resnet"] = "resnet"
    depth: Literal[10, 18, 34, 50, 101] = 50
    variant: Variant = "d"
    width: int = Field(default=64, ge=8, multiple_of=2)  # channels of the first stage's 3x3 convolutions
    stages: tuple[Literal[1, 2, 3, 4], ...] = Field(default=(2, 3, 4), min_length=1)  # whose maps are given out
    dilated_last: bool = False  # stage 4 keeps the size of stage 3 and spreads its 3x3 convolutions instead (DC5)
    frozen_norms: bool = False  # every norm is a fixed scale and shift
    frozen_stages: int = Field(default=0, ge=0, le=5)  # 1: the stem doesn't learn, 2: nor the first stage, ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the levels given out."""
        return tuple(self.outer(stage) for stage in self.stages)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels given out."""
        return tuple(16 if stage == 4 and self.dilated_last else 2 ** (stage + 1) for stage in self.stages)

    def outer(self, stage: int) -> int:
        """The channels of stage 1 to 4."""
        expansion = Bottleneck.expansion if self.depth >= 50 else Basic.expansion
        return self.width * 2 ** (stage - 1) * expansion

    @model_validator(mode="after")
    def _fits(self) -> ResNetConfig:
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages {list(self.stages)}: expected each once, fine to coarse")
        if self.dilated_last and self.depth < 50:
            raise ValueError("dilated_last needs bottlenecks: depth 50 or 101")
        return self


class ResNet(nn.Module):
    """Images [B, C, h, w] -> a map [B, C_l, h_l, w_l] for each of `config.stages`; sizes are rounded up."""

    def __init__(self, config: ResNetConfig, image_channels: int = 3) -> None:
        super().__init__()
        self.given_out = config.stages
        self.stem = _stem(config, image_channels)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList(_stage(config, number) for number in range(1, max(config.stages) + 1))
        for part in [self.stem, *self.stages][: config.frozen_stages]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.pool(self.stem(images)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[number - 1] for number in self.given_out)


def _stem(config: ResNetConfig, image_channels: int) -> nn.Sequential:
    width, half, frozen = config.width, config.width // 2, config.frozen_norms
    if config.variant == "b":
        conv = ConvNorm(image_channels, width, kernel=7, stride=2, activation=nn.ReLU(), frozen_norm=frozen)
        return nn.Sequential(conv)
    return nn.Sequential(
        ConvNorm(image_channels, half, kernel=3, stride=2, activation=nn.ReLU(), frozen_norm=frozen),
        ConvNorm(half, half, kernel=3, activation=nn.ReLU(), frozen_norm=frozen),
        ConvNorm(half, width, kernel=3, activation=nn.ReLU(), frozen_norm=frozen),
    )


def _stage(config: ResNetConfig, number: int) -> nn.Sequential:
    block = Bottleneck if config.depth >= 50 else Basic
    inner, outer = config.width * 2 ** (number - 1), config.outer(number)
    channels = config.width if number == 1 else config.outer(number - 1)
    dilated = number == 4 and config.dilated_last
    first = block(
        config,
        channels,
        inner,
        stride=1 if number == 1 or dilated else 2,
        project=config.variant == "d" or channels != outer,
    )
    count = BLOCKS[config.depth][number - 1]
    return nn.Sequential(first, *(block(config, outer, inner, dilation=2 if dilated else 1) for _ in range(1, count)))


class Basic(nn.Module):
    expansion = 1

    def __init__(
        self,
        config: ResNetConfig,
        channels: int,
        inner: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        project: bool = False,
    ) -> None:
        super().__init__()
        assert dilation == 1, "only bottlenecks are dilated"
        frozen = config.frozen_norms
        self.conv1 = ConvNorm(channels, inner, kernel=3, stride=stride, activation=nn.ReLU(), frozen_norm=frozen)
        self.conv2 = ConvNorm(inner, inner, kernel=3, frozen_norm=frozen)
        self.shortcut = _projection(config, channels, inner, stride) if project else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2.residual(self.conv1(x), self.shortcut(x), self.activation)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(
        self,
        config: ResNetConfig,
        channels: int,
        inner: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        project: bool = False,
    ) -> None:
        super().__init__()
        outer, frozen = inner * self.expansion, config.frozen_norms
        self.conv1 = ConvNorm(channels, inner, activation=nn.ReLU(), frozen_norm=frozen)
        self.conv2 = ConvNorm(
            inner, inner, kernel=3, stride=stride, dilation=dilation, activation=nn.ReLU(), frozen_norm=frozen
        )
        self.conv3 = ConvNorm(inner, outer, frozen_norm=frozen)
        self.shortcut = _projection(config, channels, outer, stride) if project else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3.residual(self.conv2(self.conv1(x)), self.shortcut(x), self.activation)


def _projection(config: ResNetConfig, channels_in: int, channels_out: int, stride: int) -> ConvNorm:
    if config.variant == "b":
        return ConvNorm(channels_in, channels_out, stride=stride, frozen_norm=config.frozen_norms)
    return PooledShortcut(channels_in, channels_out, stride, config.frozen_norms)


class PooledShortcut(ConvNorm):
    """A 1x1 convolution, after an average pool where the block shrinks the map."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, frozen_norm: bool) -> None:
        super().__init__(channels_in, channels_out, frozen_norm=frozen_norm)
        self.pool = nn.AvgPool2d(2, stride=2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))
