"""Deformable attention as one function, and the choice of the form that computes it."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from detr.errors import UsageError, did_you_mean
from detr.ops.deformable_attention_grid_sample import deformable_attention as by_grid_sample
from detr.ops.deformable_attention_torch import deformable_attention as by_torch

Kernels = Literal["auto", "torch", "triton", "grid_sample"]
Method = Literal["bilinear", "discrete"]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_VARIABLE = "DETR_KERNELS"
_LARGEST_HEAD = 256
_asked: str | None = None
"""What `kernels` asks for at present, if anything. A global of the process: compiled code guards those."""


def deformable_attention(
    value: Tensor,
    shapes: tuple[tuple[int, int], ...],
    references: Tensor,
    offsets: Tensor,
    logits: Tensor,
    points: tuple[int, ...],
    *,
    padding: Tensor | None = None,
    method: Method = "bilinear",
) -> Tensor:
    """[B, Q, M * Dh]: for each query and head the sum of P samples of the value, by softmax(logits) (Zhu et al. 2021).

    value [B, S, M, Dh], in S the maps of the levels one after the other, row by row; `shapes` their (h, w).
    offsets [B, Q, M, P, 2] as xy and logits [B, Q, M, P]; `points` says how many of the P belong to each level.
    references [B, Q, 2 or 4], or [B, Q, L, 2 or 4] where the levels have their own, in [0, 1]: of a point xy an offset
    of 1 is a position of the level; of a box cxcywh it is half a side, over the number of points of the level.
    B of the references may be 1. padding [B, S] is True where there is no image: the value counts as zero there.

    `bilinear`: (0, 0) is the outer corner of the first position, and zeros lie outside the map. `discrete` (RT-DETRv2)
    reads the one position at location * size, rounded, and the border beyond it, and gives no gradient to offsets and
    references. The official discrete code limits x by the height; here it is limited by the width, which is the same
    for square maps.

    Whatever is less than float32 is computed in float32; the result has the type of the value. UsageError for shapes
    that don't go together, and from `kernels`.
    """
    _require_fit(value, shapes, references, offsets, logits, points)
    references = references.expand(value.shape[0], *references.shape[1:])
    form = _form(value)
    compute = by_torch if form == "torch" else by_grid_sample
    if form == "triton":
        from detr.ops.deformable_attention_triton import deformable_attention as compute
    return compute(value, shapes, references, offsets, logits, points, padding=padding, method=method)


@contextmanager
def kernels(name: Kernels) -> Iterator[None]:
    """Inside, every `deformable_attention` of this process is computed by this form, whatever $DETR_KERNELS says.

    `auto` is the choice by what is given: `grid_sample` while a graph is exported, `triton` for a value on a CUDA
    device of a type and head size that its kernels know, `torch` for all else. `UsageError` for an unknown name, and
    from the operator where `triton` is asked for and cannot compute what is given.
    """
    global _asked
    before, _asked = _asked, _known(name, "kernels()")
    try:
        yield
    finally:
        _asked = before


def _require_fit(
    value: Tensor,
    shapes: tuple[tuple[int, int], ...],
    references: Tensor,
    offsets: Tensor,
    logits: Tensor,
    points: tuple[int, ...],
) -> None:
    """UsageError for what would be read past the end, or from another level. In a graph sizes may be left open."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    batch, positions, heads, _ = value.shape
    per_query = [batch, offsets.shape[1], heads, sum(points)]
    if len(points) != len(shapes):
        raise UsageError(f"points {tuple(points)} are for {len(points)} levels, shapes for {len(shapes)}")
    if positions != sum(height * width for height, width in shapes):
        raise UsageError(f"the value has {positions} positions, and the levels {tuple(shapes)} have another number")
    if list(offsets.shape) != [*per_query, 2]:
        raise UsageError(f"offsets {list(offsets.shape)}: expected [B, Q, M, P, 2], here {[*per_query, 2]}")
    if list(logits.shape) != per_query:
        raise UsageError(f"logits {list(logits.shape)}: expected [B, Q, M, P], here {per_query}")
    if references.shape[-1] not in (2, 4):
        raise UsageError(f"references {list(references.shape)}: expected points xy or boxes cxcywh last")


def _form(value: Tensor) -> str:
    asked = _asked if _asked is not None else _of_environment()
    if asked == "triton":
        _refuse_triton(value)
    if asked != "auto":
        return asked
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "grid_sample"
    if not value.is_cuda:
        return "torch"
    reason = _why_not_triton(value)
    if reason is not None and not torch.compiler.is_compiling():
        _note(reason)
    return "triton" if reason is None else "torch"


@functools.cache
def _note(reason: str) -> None:
    """Said once: it works, but slower than it could."""
    warnings.warn(
        f"deformable attention is computed by plain PyTorch: faster are the kernels 'triton', which {reason}",
        stacklevel=2,
    )


def _refuse_triton(value: Tensor) -> None:
    reason = _why_not_triton(value)
    if reason is not None:
        raise UsageError(f"the kernels asked for are 'triton', which {reason}; 'auto' takes what fits")


def _why_not_triton(value: Tensor) -> str | None:
    if not _triton_is_installed():
        return "is not installed: pip install triton"
    if not value.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"compute on a CUDA device, and the value is on {value.device}"
    if value.is_cuda and not _compiler_is_there():
        return "need a C compiler when they are first used: install gcc or clang, or say in $CC where one is"
    if value.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        return f"compute float64, float32, float16 and bfloat16, and the value is {value.dtype}"
    if value.shape[-1] > _LARGEST_HEAD:
        return f"know heads of at most {_LARGEST_HEAD} channels, and the value has {value.shape[-1]}"
    return None


def _constant_in_graphs(function: _Function) -> _Function:
    """Marked as by `torch.compiler.assume_constant_result`, which would load the compiler: seconds of every start."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant_in_graphs
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@_constant_in_graphs
def _compiler_is_there() -> bool:
    """As Triton looks for one; on Windows it brings its own."""
    return os.name == "nt" or "CC" in os.environ or _path_to_compiler() is not None


@functools.cache
def _path_to_compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("clang")


@_constant_in_graphs
def _of_environment() -> str:
    return _known(os.environ.get(_VARIABLE, "auto"), f"${_VARIABLE}")


def _known(name: str, where: str) -> str:
    choices = get_args(Kernels)
    if name not in choices:
        hint = did_you_mean(name, choices)
        raise UsageError(f"{where}: there are no kernels {name!r}, choose from {', '.join(choices)}{hint}")
    return name
