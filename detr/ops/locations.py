"""Where the points of deformable attention are read: from references and offsets to locations in the levels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def locations_of(
    references: Tensor, offsets: Tensor, shapes: tuple[tuple[int, int], ...], points: tuple[int, ...]
) -> Tensor:
    """[B, Q, M, P, 2] xy in [0, 1] of the level of the point; arguments as of `detr.ops.deformable_attention`."""
    places = _at_points(references, points)[:, :, None]
    if references.shape[-1] == 2:
        return places + offsets / sides_of(shapes, points, offsets)
    centres, sides = places.chunk(2, -1)
    return centres + offsets * _shares_of(points, offsets) * sides * 0.5


def frames_of(
    references: Tensor, shapes: tuple[tuple[int, int], ...], points: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Where an offset of 0 is, and how far an offset of 1 from there, both [B, Q, P, 2].

    In positions of the level: (0, 0) is the middle of the first.
    """
    at_points, sizes = _at_points(references, points), sides_of(shapes, points, references)
    places = (at_points[..., :2] * sizes - 0.5).expand(-1, -1, sum(points), -1)
    if references.shape[-1] == 2:
        return places, torch.ones_like(places)
    return places, at_points[..., 2:] * (sizes * _shares_of(points, references) * 0.5)


def sides_of(shapes: tuple[tuple[int, int], ...], points: tuple[int, ...], like: Tensor) -> Tensor:
    """[P, 2], the width and height of the level of each point"""
    levels = zip(shapes, points, strict=True)
    return constant(tuple((width, height) for (height, width), count in levels for _ in range(count)), like)


def constant(numbers: tuple[float, ...] | tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """These numbers, in the type and on the device of `like`; kept, as a copy to a device waits for it."""
    build = _built if torch.compiler.is_compiling() else _kept
    return build(numbers, like.dtype, like.device)


def _at_points(references: Tensor, points: tuple[int, ...]) -> Tensor:
    """[B, Q, 2 or 4] -> [B, Q, 1, 2 or 4], [B, Q, L, 2 or 4] -> [B, Q, P, 2 or 4]"""
    if references.dim() == 3:
        return references[:, :, None]
    levels = [each.expand(-1, -1, count, -1) for each, count in zip(references.split(1, 2), points, strict=True)]
    return torch.cat(levels, 2)


def _shares_of(points: tuple[int, ...], like: Tensor) -> Tensor:
    """[P, 1], one over the number of points of the level of each point"""
    return constant(tuple((1 / count,) for count in points for _ in range(count)), like)


def _built(numbers: Sequence[float] | Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)


@functools.lru_cache(maxsize=256)
@torch.inference_mode(False)
def _kept(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _built(numbers, dtype, device)
