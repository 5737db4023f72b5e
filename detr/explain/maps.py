"""Weights of the positions of maps -> a map over the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from detr.explain.levels import Array, Level


def spread_out(weights: Array, levels: Sequence[Level], size: tuple[int, int]) -> Array:
    """[S] -> [h, w]: each level linearly between the middles of its cells, and as much in sum as it had."""
    spread = np.zeros(size, np.float32)
    for level in levels:
        cells = cells_of(weights, level)
        total = float(cells.sum())
        if total > 0:
            wide = F.interpolate(torch.from_numpy(cells)[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
            spread += (wide * (total / float(wide.sum()))).numpy()
    return spread


def cells_of(weights: Array, level: Level) -> Array:
    """[S] -> [h, w] of the part of the level that shows the image."""
    of_level = weights[level.start : level.start + level.size].reshape(level.height, level.width)
    return np.ascontiguousarray(of_level[: level.valid[0], : level.valid[1]])


def largest(map: Array, area: int) -> NDArray[np.bool_]:
    """[h, w] True in the `area` pixels with the most weight."""
    chosen = np.zeros(map.size, bool)
    chosen[np.argpartition(-map, area - 1, axis=None)[:area]] = True
    return chosen.reshape(map.shape)
