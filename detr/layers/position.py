"""Where things are: sine-cosine tables, logits of boxes, anchors. Tables are kept per size."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from detr.layers.tables import kept
from detr.layers.valid_area import cell_centres

_TEMPERATURE = 10_000.0  # of sine tables
_EPS = 1e-6  # of the divisor that turns counts of cells into shares of the image
_FINEST_SIDE, _BORDER = 0.05, 0.01  # of anchors, as shares of the image


def precise(x: Tensor) -> Tensor:
    """x in float32, or in its own type where that is finer: a box in half precision would be off by pixels."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of x in [0, 1], kept finite by `eps` at both ends."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def sine_table(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """[h * w, D] position embedding of a map's tokens, in the type and on the device of `like`.

    The rows run column by column (x slow, y fast) while the tokens of a map run row by row: so it is in the official
    RT-DETR, whose weights have learned with it. Computed in float32 whatever the type, as there.
    """
    return _sine_table(height, width, channels, like.dtype, like.device)


def shrunk(padding: Tensor | None, like: Tensor) -> Tensor | None:
    """padding [B, H, W] of the images, True where there is no image -> [B, h, w] of the map `like` [..., h, w]."""
    if padding is None:
        return None
    return F.interpolate(padding[:, None].float(), size=like.shape[-2:], mode="nearest")[:, 0].bool()


def sine_embedding(
    x: Tensor, padding: Tensor | None, *, temperature: float = _TEMPERATURE, offset: float = 0.0
) -> Tensor:
    """Position embedding of the tokens of a map x [B, D, h, w], row by row: [B, h * w, D], or [1, h * w, D].

    The first half of the channels says y, the second x; each is the number of unpadded cells up to and with this one,
    plus `offset`, as a share of the image's own height or width times 2 pi (Carion et al. 2020). padding [B, h, w] is
    True where there is no image. Computed in float32 whatever the type of x, as officially.
    """
    half = x.shape[1] // 2
    assert half % 2 == 0
    if padding is None:
        padding = torch.zeros(1, *x.shape[2:], dtype=torch.bool, device=x.device)
    seen = ~padding
    # Counted in whole numbers: the same as in floating point, and deterministic on a GPU.
    rows, columns = (seen.cumsum(axis).to(torch.float32) for axis in (1, 2))
    shares = (rows + offset) / (rows[:, -1:] + _EPS), (columns + offset) / (columns[:, :, -1:] + _EPS)
    waves = [_waves(share, half, temperature) for share in shares]
    return torch.cat(waves, -1).flatten(1, 2).to(x.dtype)


def sine_of_boxes(boxes: Tensor, channels: int) -> Tensor:
    """[..., n] numbers in [0, 1], such as boxes -> [..., n * channels], the waves of each number in turn."""
    return _waves(boxes, channels, _TEMPERATURE).flatten(-2)


def anchors(
    shapes: tuple[tuple[int, int], ...], like: Tensor, padding: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """One box per token: [S, 4] logits of cxcywh, and [S, 1] True where it is a valid proposal, None if all are.

    Centres lie in the middle of the cells, sides are 0.05 on the finest level and double with each. A box with a
    coordinate within 0.01 of 0 or 1 is not valid and has infinite logits. Computed in float32, as officially, and never
    less.

    With `padding` [B, S], True where there is no image, they are [B, S, 4] and [B, S, 1]: boxes are shares of each
    image as it is without padding, and no padding is valid.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    if padding is None:
        return _anchors(shapes, dtype, like.device)
    logits, valid = _proposals(cell_centres(shapes, padding, like.device), shapes)
    valid = valid & ~padding[..., None]
    return logits.masked_fill(~valid, math.inf).to(dtype), valid


@kept
def _sine_table(height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    assert channels % 4 == 0
    quarter, columns, rows = (
        torch.arange(count, dtype=torch.float32, device=device) for count in (channels // 4, width, height)
    )
    omega = 1.0 / _TEMPERATURE ** (quarter / (channels // 4))
    x, y = torch.meshgrid(columns, rows, indexing="ij")
    x, y = x.flatten()[:, None] * omega, y.flatten()[:, None] * omega
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], 1).to(dtype)


@kept
def _anchors(
    shapes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    logits, valid = _proposals(cell_centres(shapes, None, device)[0], shapes)
    return logits.to(dtype), None if _all_valid(shapes) else valid


def _all_valid(shapes: tuple[tuple[int, int], ...]) -> bool:
    """Whether no anchor reaches the border: known from the sizes, without a look at the anchors.

    Of sizes that are left open while a graph is recorded it isn't known.
    """
    if any(isinstance(side, torch.SymInt) for shape in shapes for side in shape):
        return False
    nearest = min(0.5 / side for shape in shapes for side in shape)
    return nearest > _BORDER and _FINEST_SIDE * 2 ** (len(shapes) - 1) < 1 - _BORDER


def _proposals(centres: Tensor, shapes: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    """centres [..., S, 2] -> logits [..., S, 4], and valid [..., S, 1]"""
    sides = [
        centres.new_full((height * width, 2), _FINEST_SIDE * 2.0**level) for level, (height, width) in enumerate(shapes)
    ]
    boxes = torch.cat([centres, torch.cat(sides).expand_as(centres)], -1)
    valid = ((boxes > _BORDER) & (boxes < 1 - _BORDER)).all(-1, keepdim=True)
    return torch.where(valid, torch.log(boxes / (1 - boxes)), math.inf), valid


def _waves(x: Tensor, channels: int, temperature: float) -> Tensor:
    """[...] shares of the image -> [..., channels]: sine and cosine in turn, of one period after the other"""
    step = torch.arange(channels, dtype=torch.float32, device=x.device) // 2
    angle = (x * (2 * math.pi))[..., None] / temperature ** (2 * step / channels)
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)
