"""Deformable attention fused in Triton: neither locations nor attention weights are ever written to memory."""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from detr.ops.kernels_triton import backward_kernel, forward_kernel
from detr.ops.operator import operator

_BUILD = {"num_warps": 4, "enable_fp_fusion": True}
_BYTES = 2048  # of the value, for a program at a time: 16 for each thread of four warps
_NUMBERS = 512  # of the same in the backward pass, which has more to keep in registers
_MOST_BITS, _LARGEST_EXPONENT = 61, 126  # of whole numbers of 64 bits, and of a float32
_WIDE = 2**31  # numbers of a value's image, from which on 32 bits can't say where one lies


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
    """As `detr.ops.deformable_attention`, on a CUDA device, or a CPU under TRITON_INTERPRET=1.

    Computes and sums in float32, or float64 where the value is. The forward pass gives the same bits each time. The
    gradient of the value is added up in whatever order threads arrive; under `torch.use_deterministic_algorithms` it is
    added up in whole numbers instead, with 61 bits for the largest sum there can be: then backward gives the same bits
    too, and is more exact. There is no second derivative.
    """
    table = _table(tuple(shapes), tuple(points), value.device)
    return fused(value, references, offsets, logits, padding, table, method == "bilinear")


@operator("detr::fused_deformable_attention")
def fused(
    value: Tensor,
    references: Tensor,
    offsets: Tensor,
    logits: Tensor,
    padding: Tensor | None,
    table: Tensor,
    bilinear: bool,
) -> Tensor:
    given = _contiguous(value, references, offsets, logits)
    batch, num_queries, heads, _ = logits.shape
    out = value.new_empty(batch, num_queries, heads * value.shape[-1])
    if out.numel():
        grid, settings = _launch(given, padding, bilinear, numbers=_BYTES // value.element_size())
        with _on(value.device):
            forward_kernel[grid](
                *given, _bytes(padding, value), table, out,
                num_queries, value.shape[1], **settings, **_BUILD,
            )  # fmt: skip
    return out


@operator("detr::fused_deformable_attention_backward")
def fused_backward(
    grad: Tensor,
    value: Tensor,
    references: Tensor,
    offsets: Tensor,
    logits: Tensor,
    padding: Tensor | None,
    table: Tensor,
    bilinear: bool,
    of_references: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of value, references (zeros unless `of_references`), offsets and logits."""
    given = _contiguous(value, references, offsets, logits)
    grad = grad.contiguous()
    number, exact = _number(value), torch.are_deterministic_algorithms_enabled()
    of_value = torch.zeros(value.shape, dtype=torch.int64 if exact else number, device=value.device)
    of_offsets = torch.empty_like(given[2]) if bilinear else torch.zeros_like(given[2])
    of_logits = torch.empty_like(given[3])
    levels, sides = _levels(references), references.shape[-1]
    shape = (*logits.shape[:3], levels, sides) if of_references and bilinear else (0,)
    by_head = torch.zeros(shape, dtype=number, device=value.device)
    largest = (
        grad.abs().amax().to(number) if exact and grad.numel() else torch.zeros((), dtype=number, device=value.device)
    )
    unit = _unit(largest, logits.shape[1])
    if grad.numel():
        grid, settings = _launch(given, padding, bilinear, numbers=_NUMBERS)
        with _on(value.device):
            backward_kernel[grid](
                grad, *given, _bytes(padding, value), table, unit,
                of_value, by_head, of_offsets, of_logits, logits.shape[1], value.shape[1], **settings,
                EXACT=exact, OF_REFERENCES=by_head.numel() > 0, BLOCK_L=triton.next_power_of_2(levels),
                **_BUILD,
            )  # fmt: skip
    if exact:
        of_value = torch.where(largest.isfinite(), of_value * (1 / unit), torch.nan)
    of_references_ = by_head.sum(2).view_as(references) if by_head.numel() else by_head.new_zeros(references.shape)
    return of_value.to(value.dtype), of_references_.to(references.dtype), of_offsets, of_logits


def _unit(largest: Tensor, num_queries: int) -> Tensor:
    """A power of two by which sums are counted in whole numbers: a position gets at most `largest` of each query."""
    bits = largest.clamp(min=2.0**-_LARGEST_EXPONENT).log2() + math.log2(max(1, num_queries))  # no product to overflow
    return torch.exp2((_MOST_BITS - bits.ceil()).clamp(max=_LARGEST_EXPONENT))


def _launch(
    given: tuple[Tensor, ...], padding: Tensor | None, bilinear: bool, *, numbers: int
) -> tuple[tuple[int], dict[str, Any]]:
    """The grid of programs, and what both kernels are built for; a program has tiles of so many numbers.

    Of one axis, as a GPU takes 2 ** 31 - 1 programs along the first and 65,535 along any other.
    """
    value, references, _, logits = given
    batch, num_queries, heads, num_points = logits.shape
    channels = value.shape[-1]
    block = triton.next_power_of_2(channels)
    queries = min(max(1, numbers // block), triton.next_power_of_2(num_queries))
    settings = {
        "HEADS": heads,
        "POINTS": num_points,
        "CHANNELS": channels,
        "LEVELS": _levels(references),
        "SIDES": references.shape[-1],
        "BILINEAR": bilinear,
        "PADDED": padding is not None,
        "WIDE": value[0].numel() >= _WIDE,
        "NUMBER": tl.float64 if value.dtype == torch.float64 else tl.float32,
        "BLOCK_Q": queries,
        "BLOCK_P": triton.next_power_of_2(num_points),
        "BLOCK_D": block,
    }
    return (triton.cdiv(num_queries, queries) * batch * heads,), settings


def _contiguous(*given: Tensor) -> tuple[Tensor, ...]:
    return tuple(each.contiguous() for each in given)


def _levels(references: Tensor) -> int:
    """How many references a query has: one for each level, or one for all."""
    return references.shape[2] if references.dim() == 4 else 1


def _number(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)


def _bytes(padding: Tensor | None, otherwise: Tensor) -> Tensor:
    """A kernel without padding takes any tensor in its place, and doesn't read it."""
    return otherwise if padding is None else padding.contiguous().view(torch.uint8)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _table(shapes: tuple[tuple[int, int], ...], points: tuple[int, ...], device: torch.device) -> Tensor:
    """[P, 5] as the kernels want it.

    Kept; in a graph a part of it. Made outside of the operator, and on the device: memory that an operator keeps would
    be taken from a CUDA graph's own, and a copy from the host could not be replayed.
    """
    build = _built if torch.compiler.is_compiling() else _kept
    return build(shapes, points, device)


def _built(shapes: tuple[tuple[int, int], ...], points: tuple[int, ...], device: torch.device) -> Tensor:
    levels, start = [], 0
    for level, ((height, width), count) in enumerate(zip(shapes, points, strict=True)):
        columns = (height, width, start, count, level)
        levels.append(
            torch.stack([torch.full((count,), each, dtype=torch.int32, device=device) for each in columns], 1)
        )
        start += height * width
    return torch.cat(levels)


_kept = functools.lru_cache(maxsize=64)(torch.inference_mode(False)(_built))


@torch.library.register_fake(fused)
def _(value, references, offsets, logits, padding, table, bilinear):
    return value.new_empty(*logits.shape[:2], logits.shape[2] * value.shape[-1])


@torch.library.register_fake(fused_backward)
def _(grad, value, references, offsets, logits, padding, table, bilinear, of_references):
    return tuple(each.new_empty(each.shape) for each in (value, references, offsets, logits))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.bilinear = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad
    grads = fused_backward(grad, *ctx.saved_tensors, ctx.bilinear, needed[1])
    return (*(each if wanted else None for each, wanted in zip(grads, needed, strict=False)), None, None, None)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("deformable attention has no second derivative in its form 'triton'; 'grid_sample' has")


torch.library.register_autograd(fused, _backward, setup_context=_remember)
torch.library.register_autograd(fused_backward, _no_second_derivative)
