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
from detr.ops.rows import SumsIntoRows, products_with_rows

_NUMBERS_AT_ONCE = 1 << 19
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


@torch.library.custom_op("detr::bilinear_sums", mutates_args=())
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


@torch.library.custom_op("detr::bilinear_sums_backward", mutates_args=())
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
    given = (value, places, scales, offsets, logits)
    grads = Gradients(*_alike(given))
    grid = grid_of(tuple(sizes), tuple(points), logits.shape[2], value.device)
    first = torch.empty(logits.shape[1:], dtype=torch.int32, device=value.device)
    shares = value.new_empty(4, *logits.shape[1:])
    for image in range(len(value)):
        rows_of_value, rows_of_grad = value[image].flatten(0, 1), grad[image].flatten(0, 1)
        for chunk in _chunks(logits):
            corners = _corners(places, scales, offsets, image, chunk, grid)
            rows, weights = corners.rows(), _softmax(logits[image, chunk])
            products = products_with_rows(
                grad[image, chunk].flatten(0, 1), rows_of_value, rows.flatten(0, 1).flatten(1)
            ).view(rows.shape)
            of_weights, of_position = corners.gradients(weights, products)
            grads.logits[image, chunk] = _gradient_of_softmax(weights, of_weights)
            _write_gradients_of_position(grads, (image, chunk), of_position, scales, offsets)
            first[chunk] = rows[:, :, 0]
            shares[:, chunk] = corners.shares(weights).permute(2, 0, 1, 3)
        _write_gradient_of_value(grads.value[image], rows_of_grad, first.flatten(), shares.flatten(1), sizes)
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


def _write_gradient_of_value(out: Tensor, grad: Tensor, first: Tensor, shares: Tensor, sizes: list[int]) -> None:
    """Write out [S, M, Dh] from grad [Q * M, Dh], rows of first corners [Q * M * P], shares of all [4, Q * M * P].

    The first corners of all samples are sorted once: what goes to the other three lies a fixed step behind. Beyond the
    last line and column of a level the sums are zero, as no sample's first corner lies there.
    """
    heads = out.shape[1]
    bands = _bands(sizes, out[0].numel(), out.device)
    borders = [band.start * heads for band in bands] + [len(out) * heads]
    sums = SumsIntoRows(grad, first, shares, borders)
    below = out[:0]
    for band, begin, end in zip(bands, borders, borders[1:], strict=False):
        corners = (sums.between(begin, end, corner).view(-1, band.width, *out.shape[1:]) for corner in range(4))
        total = out.new_zeros(band.lines + 1, band.width, *out.shape[1:])
        for (down, right), corner in zip(((0, 0), (0, 1), (1, 0), (1, 1)), corners, strict=True):
            total[down : down + band.lines, right:] += corner[:, : band.width - right]
        if not band.begins:
            total[0] += below
        out[band.start : band.start + band.lines * band.width] = total[:-1].flatten(0, 1)
        below = total[-1]


class _Band(NamedTuple):
    """Some lines of a level, from a position of the value on; whether they are the first of the level."""

    start: int
    lines: int
    width: int
    begins: bool


def _bands(sizes: list[int], numbers: int, device: torch.device) -> list[_Band]:
    """All lines of all levels; with so many numbers in a position, the bands of a CPU fit its cache."""
    bands, start = [], 0
    for height, width in zip(sizes[::2], sizes[1::2], strict=True):
        step = max(1, _NUMBERS_AT_ONCE // (width * numbers)) if device.type == "cpu" else height
        for line in range(0, height, step):
            bands.append(_Band(start + line * width, min(step, height - line), width, line == 0))
        start += height * width
    return bands


@bilinear_sums.register_fake
def _(value, places, scales, offsets, logits, sizes, points):
    return value.new_empty(*logits.shape[:3], value.shape[-1])


@bilinear_sums_backward.register_fake
def _(grad, value, places, scales, offsets, logits, sizes, points):
    return tuple(_alike((value, places, scales, offsets, logits)))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.sizes, ctx.points = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*bilinear_sums_backward(grad.contiguous(), *ctx.saved_tensors, ctx.sizes, ctx.points), None, None)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("deformable attention has no second derivative in its form 'torch'; 'grid_sample' has")


bilinear_sums.register_autograd(_backward, setup_context=_remember)
bilinear_sums_backward.register_autograd(_no_second_derivative)
