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
from detr.ops.rows import products_with_rows, sums_into_rows

_SAMPLES_AT_ONCE = {"cpu": 1 << 15}
_OTHERWISE = 1 << 20
"""On a CPU what its cache holds; elsewhere what memory holds easily, as each step is a launch."""


class Gradients(NamedTuple):
    """Of what `bilinear_sums` is given."""

    value: Tensor
    places: Tensor
    scales: Tensor
    offsets: Tensor
    weights: Tensor


@torch.library.custom_op("detr::bilinear_sums", mutates_args=())
def bilinear_sums(
    value: Tensor, places: Tensor, scales: Tensor, offsets: Tensor, weights: Tensor, sizes: list[int], points: list[int]
) -> Tensor:
    """The samples of `value` at places + scales * offsets, times their weights, summed: [B, Q, M, Dh].

    value [B, S, M, Dh]; places and scales [B, Q, P, 2] and offsets [B, Q, M, P, 2], as xy; weights [B, Q, M, P]; all of
    one type, float32 or float64. (0, 0) is the middle of a level's first position, 1 the step to the next; zeros lie
    outside. `sizes` are h, w, h, w, ... of the levels, `points` how many of the P samples belong to each.

    Forward and backward give the same bits each time, on every device. There is no second derivative.
    """
    batch, num_queries, heads, _ = weights.shape
    summed = value.new_empty(batch, num_queries, heads, value.shape[-1])
    grid = grid_of(tuple(sizes), tuple(points), heads, value.device)
    for image in range(batch):
        rows_of_value = value[image].flatten(0, 1)
        for chunk in _chunks(weights):
            corners = _corners(places, scales, offsets, image, chunk, grid)
            bags = corners.rows().flatten(0, 1).flatten(1)
            shares = corners.shares(weights[image, chunk]).flatten(0, 1).flatten(1)
            bags = F.embedding_bag(bags, rows_of_value, mode="sum", per_sample_weights=shares)
            summed[image, chunk] = bags.unflatten(0, (-1, heads))
    return summed


@torch.library.custom_op("detr::bilinear_sums_backward", mutates_args=())
def bilinear_sums_backward(
    grad: Tensor,
    value: Tensor,
    places: Tensor,
    scales: Tensor,
    offsets: Tensor,
    weights: Tensor,
    sizes: list[int],
    points: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """grad [B, Q, M, Dh] -> the gradients of value, places, scales, offsets and weights."""
    given = (value, places, scales, offsets, weights)
    grads = Gradients(*_alike(given))
    grid = grid_of(tuple(sizes), tuple(points), weights.shape[2], value.device)
    first = torch.empty(weights.shape[1:], dtype=torch.int32, device=value.device)
    shares = value.new_empty(4, *weights.shape[1:])
    for image in range(len(value)):
        rows_of_value, rows_of_grad = value[image].flatten(0, 1), grad[image].flatten(0, 1)
        for chunk in _chunks(weights):
            corners = _corners(places, scales, offsets, image, chunk, grid)
            rows, weight = corners.rows(), weights[image, chunk]
            products = products_with_rows(
                grad[image, chunk].flatten(0, 1), rows_of_value, rows.flatten(0, 1).flatten(1)
            ).view(rows.shape)
            of_weight, of_position = corners.gradients(weight, products)
            grads.weights[image, chunk] = of_weight
            _write_gradients_of_position(grads, (image, chunk), of_position, scales, offsets)
            first[chunk] = rows[:, :, 0]
            shares[:, chunk] = corners.shares(weight).permute(2, 0, 1, 3)
        sums = sums_into_rows(rows_of_grad, first.flatten(), shares.flatten(1), len(rows_of_value), weights.shape[-1])
        _spread(sums.view(4, *value.shape[1:]), grads.value[image], sizes)
    return grads


def _write_gradients_of_position(
    grads: Gradients, at: tuple[int, slice], of_position: Tensor, scales: Tensor, offsets: Tensor
) -> None:
    """of_position [2, Q, M, P], where position = place + scale * offset."""
    grads.places[at] = of_position.sum(2).movedim(0, -1)
    of_position = of_position.movedim(0, -1)
    grads.offsets[at] = of_position * scales[at][:, None]
    grads.scales[at] = (of_position * offsets[at]).sum(1)


def _alike(given: tuple[Tensor, ...]) -> Iterator[Tensor]:
    return (torch.empty_like(each, memory_format=torch.contiguous_format) for each in given)


def _corners(places: Tensor, scales: Tensor, offsets: Tensor, image: int, chunk: slice, grid: Grid) -> Corners:
    place, scale, offset = (each[image, chunk].movedim(-1, 0) for each in (places, scales, offsets))
    positions = torch.empty(offset.shape, dtype=offset.dtype, device=offset.device)
    return Corners(torch.addcmul(place[:, :, None], scale[:, :, None], offset, out=positions), grid)


def _chunks(weights: Tensor) -> Iterator[slice]:
    """Of the queries of one image."""
    _, num_queries, heads, num_points = weights.shape
    step = max(1, _SAMPLES_AT_ONCE.get(weights.device.type, _OTHERWISE) // (heads * num_points))
    return (slice(start, min(start + step, num_queries)) for start in range(0, num_queries, step))


def _spread(sums: Tensor, out: Tensor, sizes: list[int]) -> None:
    """sums [4, S, M, Dh] of the corners, kept at the first of the four -> where they belong: out [S, M, Dh]."""
    start = 0
    for height, width in zip(sizes[::2], sizes[1::2], strict=True):
        level = slice(start, start + height * width)
        here, right, below, across = sums[:, level].unflatten(1, (height, width)).unbind()
        total = out[level].copy_(here.flatten(0, 1)).unflatten(0, (height, width))
        total[:, 1:] += right[:, :-1]
        total[1:] += below[:-1]
        total[1:, 1:] += across[:-1, :-1]
        start += height * width


@bilinear_sums.register_fake
def _(value, places, scales, offsets, weights, sizes, points):
    return value.new_empty(*weights.shape[:3], value.shape[-1])


@bilinear_sums_backward.register_fake
def _(grad, value, places, scales, offsets, weights, sizes, points):
    return tuple(_alike((value, places, scales, offsets, weights)))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.sizes, ctx.points = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*bilinear_sums_backward(grad.contiguous(), *ctx.saved_tensors, ctx.sizes, ctx.points), None, None)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("deformable attention has no second derivative in its form 'torch'; 'grid_sample' has")


bilinear_sums.register_autograd(_backward, setup_context=_remember)
bilinear_sums_backward.register_autograd(_no_second_derivative)
