"""Multi-scale deformable attention: weighted sums of a few sampled positions per query, head and level."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

_MANY = 2000
"""From so many queries on, such as all positions of an encoder, the samples of one level are summed before the next are
taken: all at once would be gigabytes. With fewer, the number of steps counts."""


def deformable_attention(
    value: Tensor,
    shapes: tuple[tuple[int, int], ...],
    locations: Tensor,
    weights: Tensor,
    points: tuple[int, ...],
    *,
    method: Literal["bilinear", "discrete"] = "bilinear",
) -> Tensor:
    """value [B, S, M, Dh], locations [B, Q, M, P, 2] xy in [0, 1], weights [B, Q, M, P] -> [B, Q, M * Dh].

    `shapes` are the (h, w) of the levels one after the other in S, `points` how many of the P samples belong to each.
    `bilinear`: (0, 0) is the outer corner of the first position, and zeros lie outside the map. `discrete` (RT-DETRv2)
    reads the one position at location * size, rounded, and the border beyond it. The official discrete code limits
    x by the height; here it is limited by the width, which is the same for square maps. Sampling is done in the type of
    the locations, which should not be less than float32: 8 bits of bfloat16 are a third of a position of 80.
    """
    batch, _, heads, channels = value.shape
    num_queries = locations.shape[1]
    sample = _bilinear if method == "bilinear" else _discrete
    maps = value.to(locations.dtype).permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], -1)
    places = locations.transpose(1, 2).flatten(0, 1).split(points, 2)
    levels = (
        sample(level.unflatten(-1, shape), place) for level, shape, place in zip(maps, shapes, places, strict=True)
    )
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]
    if num_queries < _MANY:
        attended = (torch.cat(list(levels), -1) * weights).sum(-1)
    else:
        shares = weights.split(points, -1)
        attended = sum((each * share).sum(-1) for each, share in zip(levels, shares, strict=True))
    return attended.view(batch, heads * channels, num_queries).transpose(1, 2).to(value.dtype)


def _bilinear(maps: Tensor, places: Tensor) -> Tensor:
    """[N, Dh, h, w], [N, Q, P, 2] -> [N, Dh, Q, P]"""
    return F.grid_sample(maps, 2 * places - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


def _discrete(maps: Tensor, places: Tensor) -> Tensor:
    """[N, Dh, h, w], [N, Q, P, 2] -> [N, Dh, Q, P]"""
    height, width = maps.shape[-2:]
    pixels = (places * places.new_tensor([width, height]) + 0.5).long()  # towards zero, as officially
    index = pixels[..., 1].clamp(0, height - 1) * width + pixels[..., 0].clamp(0, width - 1)
    picked = maps.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, maps.shape[1], -1))
    return picked.unflatten(2, index.shape[1:])
