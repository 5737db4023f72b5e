"""Maps cut into tiles whose products are a 3x3 convolution, and back (Winograd's algorithm; Lavin and Gray 2016).

A tile of 4 x 4 answers needs 6 x 6 inputs d. The 36 numbers `B^T d B` of each input channel are multiplied, each with a
matrix of its own from input to output channels, and `A^T m A` of the 36 products m are the answers: 36 multiplications
where a convolution has 144. The polynomials behind it are evaluated at 0, 3/4, -3/4, 3/2, -3/2 and infinity. These
points leave a seventh of the rounding that 0, 1, -1, 2, -2 do, and A and B stay exact in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr.ops.operator import operator

STEP, EDGE = 4, 6  # between tiles; of a tile
NUMBERS = EDGE * EDGE
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
_DISTANCES = [np.prod([point - other for other in _POINTS if other != point]) for point in _POINTS]
_SPREAD = np.vstack([np.vander(_POINTS, 3, increasing=True) / np.array(_DISTANCES)[:, None], np.eye(3)[-1:]])
"""G [6, 3]: powers of the points over the product of their distances to the others; infinity has only the highest."""
_ANSWERS = np.vstack([np.vander(_POINTS, STEP, increasing=True), np.eye(STEP)[-1:]]).T
"""A^T [4, 6]: powers of the points."""
_ZERO_ELSEWHERE = [np.poly([other for other in _POINTS if other != point])[::-1] for point in _POINTS]
_GATHER = np.vstack([*[np.append(row, 0.0) for row in _ZERO_ELSEWHERE], np.poly(_POINTS)[::-1]])
"""B^T [6, 6]: coefficients, from the constant on, of the polynomials that are zero at all other points."""
_APART = torch.from_numpy(np.kron(_GATHER, _GATHER)).float()
_TOGETHER = torch.from_numpy(np.kron(_ANSWERS, _ANSWERS)).float()
_ROWS_APART, _ROWS_TOGETHER = _GATHER.tolist(), _ANSWERS.tolist()


def matrices(weight: Tensor) -> Tensor:
    """The 36 matrices of a kernel [K, C, 3, 3], as the kernel of a 1x1 convolution of 36 groups: [36 K, C, 1, 1]."""
    spread = torch.from_numpy(_SPREAD)
    every = torch.einsum("ai,bj,kcij->abkc", spread, spread, weight.double())
    return every.reshape(-1, weight.shape[1], 1, 1).to(weight)


def apart(padded: Tensor) -> Tensor:
    """[N, C, 4 h + 2, 4 w + 2] channels-last -> [N, 36 C, h, w]: the numbers of each of h x w tiles."""
    return _compiled_apart(padded) if torch.compiler.is_compiling() else _apart(padded)


def together(products: Tensor, bias: Tensor) -> Tensor:
    """[N, 36 K, h, w] channels-last -> [N, K, 4 h, 4 w]: the answers of all tiles; bias [K]."""
    return _compiled_together(products, bias) if torch.compiler.is_compiling() else _together(products, bias)


def _apart(padded: Tensor) -> Tensor:
    tiles = padded.unfold(2, EDGE, STEP).unfold(3, EDGE, STEP)
    images, channels, rows, columns = tiles.shape[:4]
    tiles = tiles.permute(0, 2, 3, 4, 5, 1).reshape(-1, NUMBERS, channels)
    return _maps(torch.matmul(_APART, tiles).view(images, rows, columns, -1))


def _together(products: Tensor, bias: Tensor) -> Tensor:
    (images, _, rows, columns), channels = products.shape, len(bias)
    numbers = products.permute(0, 2, 3, 1).reshape(-1, NUMBERS, channels)
    answers = torch.matmul(_TOGETHER, numbers).view(images, rows, columns, STEP, STEP, channels)
    answers = answers.transpose(2, 3) + bias
    return _maps(answers.reshape(images, STEP * rows, STEP * columns, channels))


def _maps(x: Tensor) -> Tensor:
    """[N, h, w, C] -> [N, C, h, w] as it lies."""
    return x.permute(0, 3, 1, 2)


@operator("detr::tiles_apart")
def _compiled_apart(padded: Tensor) -> Tensor:
    """One pass over the map where matrices need three; an operator, for the compiler spoils it among other code."""
    return _run(_apart_by_terms, padded)


@operator("detr::tiles_together")
def _compiled_together(products: Tensor, bias: Tensor) -> Tensor:
    return _run(_together_by_terms, products, bias)


@torch.library.register_fake(_compiled_apart)
def _(padded: Tensor) -> Tensor:
    images, channels, height, width = padded.shape
    return _maps(padded.new_empty(images, height // STEP, width // STEP, NUMBERS * channels))


@torch.library.register_fake(_compiled_together)
def _(products: Tensor, bias: Tensor) -> Tensor:
    images, _, rows, columns = products.shape
    return _maps(products.new_empty(images, STEP * rows, STEP * columns, len(bias)))


def _run(form: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """What `form` answers, compiled for maps of this size."""
    x = x.contiguous(memory_format=torch.channels_last)
    return _compiled(form, x.shape, *(other.shape for other in others))(x, *others)


@cache
def _compiled(form: Callable[..., Tensor], *shapes: torch.Size) -> Callable[..., Tensor]:
    from torch._inductor import compile
    from torch.fx.experimental.proxy_tensor import make_fx

    examples: list[Any] = [torch.empty(shape) for shape in shapes]
    examples[0] = examples[0].contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return compile(make_fx(form)(*examples), examples)


def _apart_by_terms(padded: Tensor) -> Tensor:
    x = padded.permute(0, 2, 3, 1)
    height, width = x.shape[1] - EDGE + 1, x.shape[2] - EDGE + 1
    values = [[x[:, i : i + height : STEP, j : j + width : STEP] for j in range(EDGE)] for i in range(EDGE)]
    return _maps(torch.cat([number for row in _terms(_ROWS_APART, values) for number in row], 3))


def _together_by_terms(products: Tensor, bias: Tensor) -> Tensor:
    numbers = products.permute(0, 2, 3, 1).unflatten(3, (EDGE, EDGE, -1))
    values = [[numbers[..., i, j, :] for j in range(EDGE)] for i in range(EDGE)]
    rows = [torch.stack(row, 3) + bias for row in _terms(_ROWS_TOGETHER, values)]
    return _maps(torch.stack(rows, 2).flatten(1, 2).flatten(2, 3))


def _terms(matrix: list[list[float]], values: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """`matrix values matrix^T`, term by term."""
    columns = [_times(matrix, column) for column in zip(*values, strict=True)]
    return [_times(matrix, row) for row in zip(*columns, strict=True)]


def _times(matrix: list[list[float]], values: Sequence[Tensor]) -> list[Tensor]:
    terms = ([factor * value for factor, value in zip(row, values, strict=True) if factor] for row in matrix)
    return [reduce(torch.add, row) for row in terms]
