"""A vision transformer beside a small convolutional net (Huang et al. 2025, "spatial tuning adapter").

The transformer (Dosovitskiy et al. 2021) turns queries and keys by where they are (Su et al. 2021), on one stride.
Three of its layers are resized to three levels, and the convolutions bring in the details. Sizes S and S-plus are those
of DINOv3 (Siméoni et al. 2025): registers, scaled residuals, keys without bias, maps normed.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from detr.config import Config
from detr.layers.conv import ConvNorm
from detr.layers.transformer import FeedForward, SwiGLU

_PATCH = 16
_LONGEST_PERIOD = 100.0
_FIRST_SCALE = 1e-5  # of the residuals
_RESCALED = math.log(2)  # in training, places are taken for up to twice or half as far from the centre


class Size(NamedTuple):
    width: int
    heads: int
    hidden: int  # of the feed-forward parts
    gated: bool = False  # SwiGLU
    dinov3: bool = False
    num_layers: int = 12


SIZES = {
    "tiny": Size(192, 3, 768),
    "tiny-plus": Size(256, 4, 1024),
    "S": Size(384, 6, 1536, dinov3=True),
    "S-plus": Size(384, 6, 1536, gated=True, dinov3=True),
}


class ViTConfig(Config):
    kind: Literal["vit"] = "vit"
    size: Literal["tiny", "tiny-plus", "S", "S-plus"] = "S"
    layers: tuple[int, int, int] = (6, 9, 12)  # whose maps become the three levels, fine to coarse
    detail: int = Field(default=32, ge=1)  # channels of the first convolution beside the transformer
    out: int = Field(default=224, ge=8)  # channels of the levels given out
    frozen_norms: Literal[False] = False

    @property
    def channels(self) -> tuple[int, int, int]:
        """Of the levels given out."""
        return (self.out, self.out, self.out)

    @property
    def strides(self) -> tuple[int, int, int]:
        """Likewise."""
        return (8, 16, 32)

    @property
    def dinov3(self) -> bool:
        return SIZES[self.size].dinov3

    @model_validator(mode="after")
    def _fits(self) -> ViTConfig:
        most = SIZES[self.size].num_layers
        if list(self.layers) != sorted(set(self.layers)) or not 1 <= self.layers[0] <= self.layers[-1] <= most:
            raise ValueError(f"layers {list(self.layers)}: expected three of 1 to {most}, rising")
        return self


class ViT(nn.Module):
    """Images [B, C, h, w] -> maps of strides 8, 16, 32 with `config.channels` channels; sizes are rounded up."""

    def __init__(self, config: ViTConfig, image_channels: int = 3) -> None:
        super().__init__()
        size, detail = SIZES[config.size], config.detail
        self.taken = config.layers
        self.stem = nn.Conv2d(image_channels, size.width, _PATCH, stride=_PATCH)
        self.class_token = nn.Parameter(torch.empty(1, 1, size.width))
        self.registers = nn.Parameter(torch.empty(1, 4, size.width)) if size.dinov3 else None
        self.rotation = Rotation(size.width // size.heads, rescaled=size.dinov3)
        self.stages = nn.ModuleList(Block(size) for _ in range(size.num_layers))
        self.norm = _norm(size) if size.dinov3 else nn.Identity()
        self.details = Details(image_channels, detail)
        self.projections = nn.ModuleList(
            ConvNorm(size.width + channels, config.out) for channels in (2 * detail, 4 * detail, 4 * detail)
        )
        self._initialise()

    def fresh(self) -> list[nn.Module]:
        """What stands beside the pretrained transformer."""
        return [self.details, self.projections]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        levels = []
        for semantic, details, project in zip(self._maps(images), self.details(images), self.projections, strict=True):
            resized = F.interpolate(semantic, size=details.shape[-2:], mode="bilinear", align_corners=False)
            levels.append(project(torch.cat([resized, details], 1)))
        return tuple(levels)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """[B, 3, h, w] -> [B, D, h / 16, w / 16] of each layer taken"""
        height, width = images.shape[-2:]
        x = self.stem(F.pad(images, (0, -width % _PATCH, 0, -height % _PATCH)))
        shape = (x.shape[2], x.shape[3])
        first = [self.class_token] if self.registers is None else [self.class_token, self.registers]
        before = [each.expand(x.shape[0], -1, -1).to(x.dtype) for each in first]
        tokens = torch.cat([*before, x.flatten(2).transpose(1, 2)], 1)
        maps = []
        for number, block in enumerate(self.stages[: self.taken[-1]], start=1):
            tokens = block(tokens, self.rotation(shape, x.device))
            if number in self.taken:
                places = self.norm(tokens)[:, -shape[0] * shape[1] :]
                maps.append(places.transpose(1, 2).unflatten(2, shape))
        return maps

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.stages.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for tokens in (self.class_token, self.registers):
            if tokens is not None:
                nn.init.normal_(tokens, std=0.02)


class Rotation(nn.Module):
    """The angles by which the channels of a head are turned at each place, of ever longer periods; in float32."""

    def __init__(self, channels: int, *, rescaled: bool) -> None:
        super().__init__()
        self.count, self.rescaled = channels // 4, rescaled

    def forward(self, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """(h, w) -> sines and cosines [h * w, D]; places are in [-1, 1], and drawn nearer or farther in training."""
        rows, columns = (2 * ((torch.arange(n, dtype=torch.float32, device=device) + 0.5) / n) - 1 for n in shape)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        if self.training and self.rescaled:
            places = places * places.new_empty(1).uniform_(-_RESCALED, _RESCALED).exp()
        angles = (2 * math.pi * places[..., None] / periods(self.count, device)).flatten(1).repeat(1, 2)
        return angles.sin(), angles.cos()


def periods(count: int, device: torch.device | None = None) -> Tensor:
    """[count] float32, from 1 up to a hundred"""
    return _LONGEST_PERIOD ** (2 * torch.arange(count, dtype=torch.float32, device=device) / (2 * count))


class Block(nn.Module):
    """Attention and feed-forward with the norm before each; residuals scaled by learned numbers in DINOv3."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1 = _norm(size)
        self.attention = RotaryAttention(size.width, size.heads, key_bias=not size.dinov3)
        self.norm2 = _norm(size)
        make = SwiGLU if size.gated else _feed_forward
        self.feed_forward = make(size.width, size.hidden)
        first = torch.full((size.width,), _FIRST_SCALE)
        self.scale1 = nn.Parameter(first.clone()) if size.dinov3 else None
        self.scale2 = nn.Parameter(first.clone()) if size.dinov3 else None

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        attended = self.attention(self.norm1(x), rotation)
        x = x + (attended if self.scale1 is None else attended * self.scale1)
        answer = self.feed_forward(self.norm2(x))
        return x + (answer if self.scale2 is None else answer * self.scale2)


class RotaryAttention(nn.Module):
    """Queries and keys of places are turned by where they are; those of the tokens before them are not."""

    def __init__(self, channels: int, heads: int, *, key_bias: bool) -> None:
        super().__init__()
        self.heads, self.key_bias = heads, key_bias
        self.project_in = nn.Linear(channels, 3 * channels)  # rows: queries, keys, values
        self.project_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[B, S, D], sines and cosines [P, D / M] of the last P tokens"""
        bias: Tensor = self.project_in.bias
        if not self.key_bias:
            queries, keys, values = bias.chunk(3)
            bias = torch.cat([queries, torch.zeros_like(keys), values])
        parts = F.linear(x, self.project_in.weight, bias).chunk(3, -1)
        query, key, value = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in parts)
        attended = F.scaled_dot_product_attention(_turned(query, *rotation), _turned(key, *rotation), value)
        return self.project_out(attended.transpose(1, 2).flatten(2))


class Details(nn.Module):
    """Maps of strides 8, 16, 32 by strided convolutions, with 2, 4 and 4 times `channels`."""

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        self.stem = ConvNorm(image_channels, channels, kernel=3, stride=2, activation=nn.GELU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = ConvNorm(channels, 2 * channels, kernel=3, stride=2)
        self.conv3 = ConvNorm(2 * channels, 4 * channels, kernel=3, stride=2)
        self.conv4 = ConvNorm(4 * channels, 4 * channels, kernel=3, stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.conv2(self.pool(self.stem(images)))
        middle = self.conv3(F.gelu(fine))
        return fine, middle, self.conv4(F.gelu(middle))


def _norm(size: Size) -> nn.LayerNorm:
    return nn.LayerNorm(size.width, eps=1e-5 if size.dinov3 else 1e-6)


def _feed_forward(channels: int, hidden: int) -> nn.Module:
    return FeedForward(channels, hidden, nn.GELU())


def _turned(x: Tensor, sines: Tensor, cosines: Tensor) -> Tensor:
    """x [B, M, S, D]; channel i of the last tokens turns with channel i + D / 2."""
    first = x.shape[2] - len(sines)
    before, places = x[:, :, :first], x[:, :, first:]
    left, right = places.chunk(2, -1)
    turned = places * cosines + torch.cat([-right, left], -1) * sines
    return torch.cat([before, turned.to(x.dtype)], 2)
