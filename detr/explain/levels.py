"""The maps that a decoder looks at, and where in the picture their positions lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr.explain.recording import DeformableCall, DenseCall, Shapes
from detr.layers.valid_area import valid_sizes

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Level:
    """One of the maps that the decoder looks at."""

    height: int  # in positions
    width: int
    valid: tuple[int, int]  # (height, width) of the part that shows the image; the rest is padding
    start: int  # where its positions begin among those of all levels

    @property
    def size(self) -> int:
        return self.height * self.width

    @property
    def image_share(self) -> tuple[float, float]:
        """Of its width and its height."""
        return self.valid[1] / self.width, self.valid[0] / self.height

    def middle(self, row: int, column: int) -> tuple[float, float]:
        """xy of a position, as shares of the image."""
        return (column + 0.5) / self.valid[1], (row + 0.5) / self.valid[0]


def levels_of(call: DenseCall | DeformableCall, image: int, map_shape: tuple[int, int]) -> tuple[Level, ...]:
    """The levels that one image of the batch has; `map_shape` is (h, w) of the only one of dense attention."""
    if isinstance(call, DenseCall):
        padding = None if call.mask is None else ~call.mask.expand(len(call.value), *call.mask.shape[-2:])[:, 0]
        return _levels((map_shape,), padding, image)
    return _levels(call.shapes, call.padding, image)


def _levels(shapes: Shapes, padding: Tensor | None, image: int) -> tuple[Level, ...]:
    if padding is None:
        valid = [(height, width) for height, width in shapes]
    else:
        sizes = valid_sizes(padding, shapes)[image].to(torch.int64).tolist()
        valid = [(height, width) for width, height in sizes]
    levels, start = [], 0
    for (height, width), part in zip(shapes, valid, strict=True):
        levels.append(Level(height, width, part, start))
        start += height * width
    return tuple(levels)
