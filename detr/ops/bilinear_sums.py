"""Weighted sums of bilinear samples of maps: one operator of plain PyTorch, its backward pass written by hand.

Two things make it fast. A sample is four rows of the value, so that all samples of a query and head are one bag of
`embedding_bag`, over all levels at once and without a copy of what is read. And queries come in chunks, so that indices
and weights are still in the processor's cache when the next step wants them. README.md derives the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detr.ops.corners import Corners, Grid, grid_of
from detr.ops.operator import operator
from detr.ops.rows import products_with_rows, sums_into_rows

_CORNERS_AT_ONCE = 1 << 20
_SAMPLES_AT_ONCE = {"cpu": 1 << 15}
_OTHERWISE = 1 << 20
"""On a CPU what its cache holds; elsewhere what memory holds easily, as each step is a launch."""


class Gradients(NamedTuple):
    """Of what `bilinear_sums` is given."""

    value: Tensor
    places: Tensor
    scales: Tensor
    offsets: Tensor
    logits: Tensor


@operator("detr::bilinear_sums")
def bilinear_sums(
    value: Tensor, places: Tensor, scales: Tensor, offsets: Tensor, logits: Tensor, sizes: list[int], points: list[int]
) -> Tensor:
    """The samples of `value` at places + scales * offsets, times softmax(logits), summed: [B, Q, M, Dh].

    value [B, S, M, Dh]; places and scales [B, Q, P, 2] and offsets [B, Q, M, P, 2], as xy; logits [B, Q, M, P]; all of
    one type, float32 or float64. (0, 0) is the middle of a level's first position, 1 the step to the next; zeros lie
    outside. `sizes` are h, w, h, w, ... of the levels, `points` how many of the P samples belong to each.

    Forward and backward give the same bits each time, on every device. There is no second derivative.
    """
    batch, num_queries, heads, _ = logits.shape
    summed = value.new_empty(batch, num_queries, heads, value.shape[-1])
    grid = grid_of(tuple(sizes), tuple(points), heads, value.device)
    for image in range(batch):
        rows_of_value = value[image].flatten(0, 1)
        for chunk in _chunks(logits):
            corners = _corners(places, scales, offsets, image, chunk, grid)
            bags = corners.rows().flatten(0, 1).flatten(1)
            shares = corners.shares(_softmax(logits[image, chunk])).flatten(0, 1).flatten(1)
            bags = F.embedding_bag(bags, rows_of_value, mode="sum", per_sample_weights=shares)
            summed[image, chunk] = bags.unflatten(0, (-1, heads))
    return summed


@operator("detr::bilinear_sums_backward")
def bilinear_sums_backward(
    grad: Tensor,
    value: Tensor,
    places: Tensor,
    scales: Tensor,
    offsets: Tensor,
    logits: Tensor,
    sizes: list[int],
    points: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """grad [B, Q, M, Dh] -> the gradients of value, places, scales, offsets and logits."""
    grads = Gradients(*_alike((value, places, scales, offsets, logits)))
    grid = grid_of(tuple(sizes), tuple(points), logits.shape[2], value.device)
    parts = _parts(logits, value, sizes, points)
    for image in range(len(value)):
        rows_of_value = value[image].flatten(0, 1)
        for chunk in _chunks(logits):
            corners = _corners(places, scales, offsets, image, chunk, grid)
            rows, weights = corners.rows(), _softmax(logits[image, chunk])
            products = products_with_rows(
                grad[image, chunk].flatten(0, 1), rows_of_value, rows.flatten(0, 1).flatten(1)
            ).view(rows.shape)
            of_weights, of_position = corners.gradients(weights, products)
            grads.logits[image, chunk] = _gradient_of_softmax(weights, of_weights)
            _write_gradients_of_position(grads, (image, chunk), of_position, scales, offsets)
            _keep(parts, chunk, rows, corners.shares(weights))
        if len(value) == len(parts) == 1:
            return grads._replace(value=parts[0].sums(grad[image])[None])
        for part in parts:
            grads.value[image, part.positions] = part.sums(grad[image])
    return grads


def _write_gradients_of_position(
    grads: Gradients, at: tuple[int, slice], of_position: Tensor, scales: Tensor, offsets: Tensor
) -> None:
    """of_position [2, Q, M, P], where position = place + scale * offset."""
    grads.places[at] = of_position.sum(2).movedim(0, -1)
    of_position = of_position.movedim(0, -1)
    grads.offsets[at] = of_position * scales[at][:, None]
    grads.scales[at] = (of_position * offsets[at]).sum(1)


def _softmax(logits: Tensor) -> Tensor:
    """Over so few numbers a step at a time is several times faster than PyTorch's own."""
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def _gradient_of_softmax(weights: Tensor, grad: Tensor) -> Tensor:
    return (grad - (grad * weights).sum(-1, keepdim=True)).mul_(weights)


def _alike(given: tuple[Tensor, ...]) -> Iterator[Tensor]:
    return (torch.empty_like(each, memory_format=torch.contiguous_format) for each in given)


def _corners(places: Tensor, scales: Tensor, offsets: Tensor, image: int, chunk: slice, grid: Grid) -> Corners:
    place, scale, offset = (each[image, chunk].movedim(-1, 0) for each in (places, scales, offsets))
    positions = torch.empty(offset.shape, dtype=offset.dtype, device=offset.device)
    return Corners(torch.addcmul(place[:, :, None], scale[:, :, None], offset, out=positions), grid)


def _chunks(logits: Tensor) -> Iterator[slice]:
    """Of the queries of one image."""
    _, num_queries, heads, num_points = logits.shape
    step = max(1, _SAMPLES_AT_ONCE.get(logits.device.type, _OTHERWISE) // (heads * num_points))
    return (slice(start, min(start + step, num_queries)) for start in range(0, num_queries, step))


class _Part(NamedTuple):
    """One level or all: where its samples go, for the gradient of the value. Made once, filled for each image."""

    positions: slice  # of the value
    points: slice
    rows: Tensor  # [Q, M, 4, P] int32 of the part's own
    shares: Tensor  # [Q, M, 4, P]

    def sums(self, grad: Tensor) -> Tensor:
        """grad [Q, M, Dh] -> [S, M, Dh] of the part"""
        _, heads, channels = grad.shape
        num_rows = (self.positions.stop - self.positions.start) * heads
        rows, shares = (each.flatten(0, 1).flatten(1) for each in (self.rows, self.shares))
        return sums_into_rows(grad.flatten(0, 1), rows, shares, num_rows).view(-1, heads, channels)


def _parts(logits: Tensor, value: Tensor, sizes: list[int], points: list[int]) -> list[_Part]:
    """Levels by themselves where all at once would be more than a sort does well."""
    num_queries, heads, num_points = logits.shape[1:]
    areas = [height * width for height, width in zip(sizes[::2], sizes[1::2], strict=True)]
    if 4 * num_queries * heads * num_points <= _CORNERS_AT_ONCE:
        areas, points = [sum(areas)], [sum(points)]
    parts, start, first = [], 0, 0
    for area, count in zip(areas, points, strict=True):
        rows = torch.empty(num_queries, heads, 4, count, dtype=torch.int32, device=value.device)
        shares = value.new_empty(num_queries, heads, 4, count)
        parts.append(_Part(slice(start, start + area), slice(first, first + count), rows, shares))
        start, first = start + area, first + count
    return parts


def _keep(parts: list[_Part], chunk: slice, rows: Tensor, shares: Tensor) -> None:
    """rows and shares [Q, M, 4, P] of these queries"""
    heads = rows.shape[1]
    for part in parts:
        torch.sub(rows[..., part.points], part.positions.start * heads, out=part.rows[chunk])
        part.shares[chunk] = shares[..., part.points]


@torch.library.register_fake(bilinear_sums)
def _(value, places, scales, offsets, logits, sizes, points):
    return value.new_empty(*logits.shape[:3], value.shape[-1])


@torch.library.register_fake(bilinear_sums_backward)
def _(grad, value, places, scales, offsets, logits, sizes, points):
    return tuple(_alike((value, places, scales, offsets, logits)))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.sizes, ctx.points = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*bilinear_sums_backward(grad.contiguous(), *ctx.saved_tensors, ctx.sizes, ctx.points), None, None)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("deformable attention has no second derivative in its form 'torch'; 'grid_sample' has")


torch.library.register_autograd(bilinear_sums, _backward, setup_context=_remember)
torch.library.register_autograd(bilinear_sums_backward, _no_second_derivative)
