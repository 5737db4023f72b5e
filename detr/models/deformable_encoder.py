"""The deformable encoder (Zhu et al. 2021, section 4.2): every position of every level looks at a few places on all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from detr.config import Config
from detr.layers.deformable import DeformableEncoderLayer
from detr.layers.position import shrunk, sine_embedding
from detr.layers.valid_area import cell_centres, on_levels, valid_ratios
from detr.models.initial_weights import spread
from detr.models.queries import Memory, memory_of

_NORM_GROUPS = 32


class DeformableEncoderConfig(Config):
    channels: int = Field(default=256, ge=_NORM_GROUPS, multiple_of=_NORM_GROUPS)
    levels: int = Field(default=4, ge=1)  # those of the backbone, and coarser ones made of its last
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=1024, ge=1)  # of the feed-forward parts
    num_layers: int = Field(default=6, ge=0)
    points: int = Field(default=4, ge=1)  # per head on each level
    dropout: float = Field(default=0.1, ge=0, lt=1)
    temperature: float = Field(default=10_000, gt=0)  # of the position embedding
    position_offset: float = -0.5  # added to the number of a row or column, which counts from 1

    @model_validator(mode="after")
    def _fits(self) -> DeformableEncoderConfig:
        if self.channels % self.heads:
            raise ValueError(f"channels {self.channels} can't be shared among {self.heads} heads")
        return self


class DeformableEncoder(nn.Module):
    """Maps of the backbone, fine to coarse, and padding [B, h, w] of the images -> `Memory`."""

    def __init__(self, config: DeformableEncoderConfig, channels_in: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        channels, extra = config.channels, config.levels - len(channels_in)
        assert extra >= 0
        projections = [_projection(each, channels, kernel=1, stride=1) for each in channels_in]
        for number in range(extra):
            coarsest = channels_in[-1] if number == 0 else channels
            projections.append(_projection(coarsest, channels, kernel=3, stride=2))
        self.projections = nn.ModuleList(projections)
        self.level_embedding = nn.Parameter(torch.empty(config.levels, channels).normal_())
        points = (config.points,) * config.levels
        layers = [
            DeformableEncoderLayer(channels, config.heads, config.hidden, points, dropout=config.dropout)
            for _ in range(config.num_layers)
        ]
        spread(layer.feed_forward for layer in layers)
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Sequence[Tensor], padding: Tensor | None = None) -> Memory:
        maps = self._levels(features)
        position = self._position(maps, padding)
        memory = memory_of(maps, padding)
        tokens, shapes, outside = memory.tokens, memory.shapes, memory.padding
        places = on_levels(cell_centres(shapes, outside, tokens.device), valid_ratios(outside, shapes))
        for layer in self.layers:
            tokens = layer(tokens, position, places, shapes, outside)
        return Memory(tokens, shapes, outside)

    def _levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        """All in the width of the transformer. The first extra level is made of the backbone's last map as it is."""
        maps = [project(each) for project, each in zip(self.projections, features, strict=False)]
        coarsest = features[-1]
        for project in self.projections[len(features) :]:
            coarsest = project(coarsest)
            maps.append(coarsest)
        return maps

    def _position(self, maps: list[Tensor], padding: Tensor | None) -> Tensor:
        """[B, S, D], or [1, S, D] without padding: where on its level, and on which"""
        config, levels = self.config, []
        for each, level in zip(maps, self.level_embedding, strict=True):
            outside = shrunk(padding, each)
            where = sine_embedding(each, outside, temperature=config.temperature, offset=config.position_offset)
            levels.append(where + level)
        return torch.cat(levels, 1)


def _projection(channels_in: int, channels: int, *, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(_NORM_GROUPS, channels))
