"""ResNet-vd (He et al. 2016; He et al. 2019, figure 2).

Three 3x3 convolutions in the stem, and an average pool before each shortcut that shrinks the map.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from detr.config import Config
from detr.layers.conv import ConvNorm

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ResNetConfig(Config):
    depth: Literal[10, 18, 34, 50, 101] = 50
    width: int = Field(default=64, ge=8, multiple_of=2)  # channels of the first stage's 3x3 convolutions
    frozen_norms: bool = False  # every norm is a fixed scale and shift
    frozen_stages: int = Field(default=0, ge=0, le=5)  # 1: the stem doesn't learn, 2: nor the first stage, ...

    @property
    def channels(self) -> tuple[int, int, int]:
        """Of the three levels given out."""
        expansion = Bottleneck.expansion if self.depth >= 50 else Basic.expansion
        return (2 * self.width * expansion, 4 * self.width * expansion, 8 * self.width * expansion)


class ResNet(nn.Module):
    """Images [B, 3, h, w] -> maps of strides 8, 16, 32 with `config.channels` channels."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width, frozen = config.width, config.frozen_norms
        half = width // 2
        self.stem = nn.Sequential(
            ConvNorm(3, half, kernel=3, stride=2, activation=nn.ReLU(), frozen_norm=frozen),
            ConvNorm(half, half, kernel=3, activation=nn.ReLU(), frozen_norm=frozen),
            ConvNorm(half, width, kernel=3, activation=nn.ReLU(), frozen_norm=frozen),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        block = Bottleneck if config.depth >= 50 else Basic
        stages, channels = [], width
        for level, count in enumerate(BLOCKS[config.depth]):
            inner = width * 2**level
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = 2 if index == 0 and level > 0 else 1
                blocks.append(block(channels, inner, stride=stride, shortcut=index == 0, frozen_norm=frozen))
                channels = inner * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        for part in [self.stem, *self.stages][: config.frozen_stages]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stages[0](self.pool(self.stem(images)))
        x8 = self.stages[1](x)
        x16 = self.stages[2](x8)
        return x8, x16, self.stages[3](x16)


class Basic(nn.Module):
    expansion = 1

    def __init__(self, channels: int, inner: int, *, stride: int, shortcut: bool, frozen_norm: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, inner, kernel=3, stride=stride, activation=nn.ReLU(), frozen_norm=frozen_norm)
        self.conv2 = ConvNorm(inner, inner, kernel=3, frozen_norm=frozen_norm)
        self.shortcut = Shortcut(channels, inner, stride, frozen_norm) if shortcut else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels: int, inner: int, *, stride: int, shortcut: bool, frozen_norm: bool) -> None:
        super().__init__()
        outer = inner * self.expansion
        self.conv1 = ConvNorm(channels, inner, activation=nn.ReLU(), frozen_norm=frozen_norm)
        self.conv2 = ConvNorm(inner, inner, kernel=3, stride=stride, activation=nn.ReLU(), frozen_norm=frozen_norm)
        self.conv3 = ConvNorm(inner, outer, frozen_norm=frozen_norm)
        self.shortcut = Shortcut(channels, outer, stride, frozen_norm) if shortcut else nn.Identity()
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


class Shortcut(ConvNorm):
    """A 1x1 convolution, after an average pool where the block shrinks the map."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, frozen_norm: bool) -> None:
        super().__init__(channels_in, channels_out, frozen_norm=frozen_norm)
        self.pool = nn.AvgPool2d(2, stride=2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))
