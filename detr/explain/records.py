"""What is known of a detection: where its query looked, what it said on the way, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from detr.bands import Bands
from detr.draw import write_image
from detr.errors import UsageError
from detr.explain.attention import weights_of
from detr.explain.levels import Array, Level
from detr.explain.maps import spread_out
from detr.explain.recording import DenseCall
from detr.image import RGB

Show = Literal["both", "map", "points"]
_ROWS = 256  # positions whose weights are computed at a time


@dataclass(frozen=True, eq=False)
class Points:
    """Where deformable attention looked, in pixels of the picture: points may lie outside of it."""

    xy: Array  # [layers, M, P, 2]
    weights: Array  # [layers, M, P], of each layer and head 1 in sum
    levels: tuple[int, ...]  # [P], the level that each point is of


@dataclass(frozen=True, eq=False)
class Step:
    """What one layer of the decoder made of the query."""

    box: tuple[float, float, float, float] | None  # xyxy in pixels; None where the layer says none
    score: float | None  # of the detection's class; None where the weights no longer hold the layer's head


@dataclass(frozen=True)
class Proposal:
    """The position of the encoder's maps that became the query."""

    rank: int  # 0 is the best of the image
    level: int
    row: int
    column: int
    xy: tuple[float, float]  # its middle, in pixels
    score: float
    label: int | None  # the class it took it for; None where positions are only ranked as object or not
    box: tuple[float, float, float, float] | None  # what it proposed; None on the border, where nothing is proposed


@dataclass(frozen=True, eq=False)
class Sides:
    """Where the left, upper, right and lower side of the box lie, as distributions (D-FINE), by layer."""

    probabilities: Array  # [layers, 4, R], 1 in sum
    positions: Array  # [layers, 4, R], of the bins in pixels: x of the left and right side, y of the others
    expected: Array  # [layers, 4], in pixels
    spread: Array  # [layers, 4], standard deviation in pixels
    interval: Array  # [layers, 4, 2], in pixels: a tenth lies below the first, a tenth above the second


@dataclass(frozen=True, eq=False)
class EncoderAttention:
    """Dense attention within the encoder: what each position of its coarsest map looks at, on that same map."""

    level: Level
    calls: tuple[DenseCall, ...] = field(repr=False)  # one for each layer of the encoder
    image: int = field(repr=False)  # place in the batch
    size: tuple[int, int] = field(repr=False)  # (height, width) of the picture

    def at(self, x: float, y: float) -> int:
        """The position whose cell a pixel of the picture lies in; the nearest for one outside."""
        (rows, columns), (height, width) = self.level.valid, self.size
        row = min(max(int(y / height * rows), 0), rows - 1)
        column = min(max(int(x / width * columns), 0), columns - 1)
        return row * self.level.width + column

    def weights(self, positions: Sequence[int], *, layer: int = -1) -> Array:
        """[N, M, S] of these positions, of each head 1 in sum."""
        with torch.inference_mode():
            return weights_of(self.calls[layer], self.image, positions).cpu().numpy()

    @cached_property
    def sources(self) -> Array:
        """[S, S], of what a position holds at the end, how much came from where: each row is 1 in sum.

        Attention rollout (Abnar & Zuidema 2020): in every layer half is what the position held before, and half what it
        looked at, the mean over the heads.
        """
        size = self.level.size
        sources: Array = np.eye(size, dtype=np.float32)
        for layer in range(len(self.calls)):
            rows = [range(start, min(start + _ROWS, size)) for start in range(0, size, _ROWS)]
            looked = np.concatenate([self.weights(each, layer=layer).mean(1) for each in rows])
            sources = ((sources + looked @ sources) / 2).astype(np.float32)
        return sources

    def map(self, x: float, y: float, *, layer: int = -1, size: tuple[int, int] | None = None) -> Array:
        """[h, w], what the position there looks at: the mean over the heads, at the picture's size unless told."""
        weights = self.weights([self.at(x, y)], layer=layer)[0].mean(0)
        return spread_out(weights, [self.level], size or self.size)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one detection looked at. Pixels are those of `image`."""

    image: Bands = field(repr=False)  # [h, w, C]
    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]  # xyxy, not clipped
    query: int
    levels: tuple[Level, ...] = field(repr=False)
    weights: Array = field(repr=False)  # [layers, M, S], how much of each position of the levels came in
    points: Points | None = field(repr=False)  # of deformable attention
    steps: tuple[Step, ...] = field(repr=False)  # one for each layer
    start: tuple[float, ...] | None = field(repr=False)  # xyxy or xy in pixels, what the first layer began with
    proposal: Proposal | None = field(repr=False)  # of two-stage models
    sides: Sides | None = field(repr=False)  # of D-FINE and DEIMv2
    encoder: EncoderAttention | None = field(repr=False)  # of models whose encoder has dense attention

    @property
    def num_layers(self) -> int:
        """Of the decoder."""
        return self.weights.shape[0]

    @property
    def num_heads(self) -> int:
        """Of its attention to the image."""
        return self.weights.shape[1]

    def require(self, *, layer: int | None = None, head: int | None = None) -> None:
        """UsageError for a layer or head that isn't there; they are counted from 0, or from the end."""
        for what, given, count in (("layer", layer, self.num_layers), ("head", head, self.num_heads)):
            if given is not None and not -count <= given < count:
                raise UsageError(f"{what} {given}: this model has {count} {what}s, 0 to {count - 1}")

    def chosen(self, *, layer: int | None = None, head: int | None = None, direct: bool = False) -> Array:
        """[S], the mean weight over layers and heads, or that of one of them.

        Where an encoder of dense attention has mixed all positions before (DETR), what a position holds came from
        others: the weights are followed back to those (`EncoderAttention.sources`), unless `direct`.
        """
        self.require(layer=layer, head=head)
        layers = self.weights if layer is None else self.weights[[layer]]
        heads = layers if head is None else layers[:, [head]]
        weights = heads.mean((0, 1))
        return weights if direct or self.encoder is None or self.points is not None else weights @ self.encoder.sources

    def map(
        self,
        *,
        layer: int | None = None,
        head: int | None = None,
        level: int | None = None,
        size: tuple[int, int] | None = None,
        direct: bool = False,
    ) -> Array:
        """[h, w], how much came in from where, at the picture's size unless told; all of it is at most 1.

        The mean over layers and heads, unless one is chosen; `direct` as in `chosen`. Each position's weight is spread
        over its cell, and between the middles of neighbouring cells linearly: a coarse level shows as a wide and low
        hill, as what it shows is wide. What a position has seen of its surroundings through convolutions, or through
        the encoder of a deformable model, is more than its cell, and not in the map.
        """
        chosen = self.levels if level is None else [self.levels[level]]
        return spread_out(self.chosen(layer=layer, head=head, direct=direct), chosen, size or self.image.shape[:2])

    def plot(self, *, layer: int | None = None, head: int | None = None, show: Show = "both") -> RGB:
        """The picture with the map, the points and the box, [h, w, 3] RGB; small pictures are enlarged."""
        from detr.explain.drawing import draw_explanation

        return draw_explanation(self, layer=layer, head=head, show=show)

    def save(
        self,
        filename: str | os.PathLike[str],
        *,
        layer: int | None = None,
        head: int | None = None,
        show: Show = "both",
    ) -> str:
        """Write `plot()`; the ending says how."""
        write_image(Path(filename), self.plot(layer=layer, head=head, show=show))
        return str(filename)

    def to_json(self) -> dict[str, Any]:
        """All of its numbers."""
        from detr.explain.plain import as_plain

        return as_plain(self)
