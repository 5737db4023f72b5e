"""Deformable attention in plain PyTorch, over all levels at once: fast on a CPU, and the same bits each time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from detr.ops.bilinear_sums import bilinear_sums
from detr.ops.locations import constant, frames_of, locations_of, sides_of


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
    """As `detr.ops.deformable_attention`. Deterministic forward and backward; no second derivative of `bilinear`."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    references, offsets, logits = references.to(dtype), offsets.to(dtype), logits.to(dtype)
    maps = value if padding is None else value.masked_fill(padding[..., None, None], 0)
    maps = maps.to(dtype).contiguous()
    if method == "discrete":
        locations = locations_of(references, offsets, shapes, points)
        return _discrete(maps, shapes, locations, logits.softmax(-1), points).to(value.dtype)
    sizes = [side for shape in shapes for side in shape]
    summed = bilinear_sums(maps, *frames_of(references, shapes, points), offsets, logits, sizes, list(points))
    return summed.flatten(2).to(value.dtype)


def _discrete(
    maps: Tensor,
    shapes: tuple[tuple[int, int], ...],
    locations: Tensor,
    weights: Tensor,
    points: tuple[int, ...],
) -> Tensor:
    """maps [B, S, M, Dh], locations [B, Q, M, P, 2], weights [B, Q, M, P] -> [B, Q, M * Dh]"""
    batch, positions, heads, channels = maps.shape
    sides = sides_of(shapes, points, locations)
    x, y = torch.minimum((locations * sides + 0.5).long().clamp(min=0), sides.long() - 1).unbind(-1)
    starts = [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]
    first = constant(tuple(start for start, count in zip(starts, points, strict=True) for _ in range(count)), x)
    images = torch.arange(batch, device=x.device).view(-1, 1, 1, 1) * positions
    rows = (images + first + y * sides[:, 0].long() + x) * heads + torch.arange(heads, device=x.device)[:, None]
    bags, shares = rows.flatten(0, 2), weights.flatten(0, 2)
    summed = F.embedding_bag(bags, maps.view(-1, channels), mode="sum", per_sample_weights=shares)
    return summed.view(batch, locations.shape[1], heads * channels)
