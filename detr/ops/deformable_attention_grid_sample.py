"""Deformable attention by `grid_sample`, level by level: what exporters know, and what the other forms are held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from detr.ops.locations import locations_of

_MANY = 2000
"""From so many queries on, such as all positions of an encoder, the samples of one level are summed before the next are
taken: all at once would be gigabytes. With fewer, the number of steps counts."""


def deformable_attention(
    value: Tensor,
    shapes: tuple[tuple[int, int], ...],
    references: Tensor,
    offsets: Tensor,
    logits: Tensor,
    points: tuple[int, ...],
    *,
    padding: Tensor | None = None,
    method: Literal["bilinear", "discrete"] = "bilinear",
) -> Tensor:
    """As `detr.ops.deformable_attention`. On a CUDA device the sum of the value's gradient has no fixed order."""
    batch, _, heads, channels = value.shape
    dtype = torch.promote_types(value.dtype, torch.float32)
    weights = logits.to(dtype).softmax(-1)
    locations = locations_of(references.to(dtype), offsets.to(dtype), shapes, points)
    if padding is not None:
        value = value.masked_fill(padding[..., None, None], 0)
    maps = value.to(dtype).permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], -1)
    attended = _weighted_sums(
        maps, shapes, locations, weights, points, _bilinear if method == "bilinear" else _discrete
    )
    return attended.view(batch, heads * channels, logits.shape[1]).transpose(1, 2).to(value.dtype)


def _weighted_sums(
    maps: tuple[Tensor, ...],
    shapes: tuple[tuple[int, int], ...],
    locations: Tensor,
    weights: Tensor,
    points: tuple[int, ...],
    sample: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """[B * M, Dh, Q]"""
    places = locations.transpose(1, 2).flatten(0, 1).split(points, 2)
    levels = (
        sample(level.unflatten(-1, shape), place) for level, shape, place in zip(maps, shapes, places, strict=True)
    )
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]
    if locations.shape[1] < _MANY:
        return (torch.cat(list(levels), -1) * weights).sum(-1)
    shares = weights.split(points, -1)
    return sum((each * share).sum(-1) for each, share in zip(levels, shares, strict=True))


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
