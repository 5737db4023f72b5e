"""The kernels of fused deformable attention: one program for some queries of one head, locations kept in registers.

`table` has a row for each point, all int32: height, width and first position of its level, how many points the level
has, its number. All else is named as in `detr.ops.deformable_attention`. README.md derives the gradients.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def forward_kernel(
    value,  # [B, S, M, Dh]
    references,  # [B, Q, LEVELS, SIDES]
    offsets,  # [B, Q, M, P, 2]
    logits,  # [B, Q, M, P]
    padding,  # [B, S]
    table,  # [P, 5]
    out,  # [B, Q, M, Dh]
    num_queries,
    num_positions,
    HEADS: tl.constexpr,
    POINTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    SIDES: tl.constexpr,
    BILINEAR: tl.constexpr,
    PADDED: tl.constexpr,
    WIDE: tl.constexpr,
    NUMBER: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    image, head, queries = _own_part(num_queries, HEADS, BLOCK_Q)
    channels = tl.arange(0, BLOCK_D)
    there, real = queries < num_queries, channels < CHANNELS
    rows = image.to(tl.int64) * num_queries + queries  # [BLOCK_Q] of references
    value += (image.to(tl.int64) * num_positions * HEADS + head) * CHANNELS
    padding += image.to(tl.int64) * num_positions
    largest, total = _softmax_of(logits, rows * HEADS + head, there, POINTS, BLOCK_P, NUMBER)

    summed = tl.zeros([BLOCK_Q, BLOCK_D], NUMBER)
    for point in range(POINTS):
        height, width, start = (
            tl.load(table + 5 * point),
            tl.load(table + 5 * point + 1),
            tl.load(table + 5 * point + 2),
        )
        at = (rows * HEADS + head) * POINTS + point
        x, y, _, _, _, _ = _place(references, offsets, table, rows, at, there, point, LEVELS, SIDES, NUMBER)
        weight = tl.exp(tl.load(logits + at, mask=there, other=0.0).to(NUMBER) - largest) / total
        if BILINEAR:
            column, right = _cell(x, width, NUMBER)
            line, below = _cell(y, height, NUMBER)
            for down in tl.static_range(2):
                share_y = below if down else 1 - below
                for over in tl.static_range(2):
                    share = weight * share_y * (right if over else 1 - right)
                    near, _, _ = _read(
                        value, padding, column + over, line + down, width, height, start, there, channels, real,
                        HEADS, CHANNELS, PADDED, WIDE, NUMBER,
                    )  # fmt: skip
                    summed += share[:, None] * near
        else:
            near, _, _ = _read(
                value, padding, _nearest(x, width), _nearest(y, height), width, height, start, there, channels, real,
                HEADS, CHANNELS, PADDED, WIDE, NUMBER,
            )  # fmt: skip
            summed += weight[:, None] * near
    into = out + ((rows * HEADS + head) * CHANNELS)[:, None] + channels[None, :]
    tl.store(into, summed.to(out.dtype.element_ty), mask=there[:, None] & real[None, :])


@triton.jit
def backward_kernel(
    grad,  # [B, Q, M, Dh]
    value,
    references,
    offsets,
    logits,
    padding,
    table,
    scale,  # [1], what a sum in whole numbers counts; not read unless EXACT
    grad_value,  # [B, S, M, Dh] zeros of NUMBER, or of int64 where EXACT
    grad_references,  # [B, Q, M, LEVELS, SIDES] of NUMBER, to be summed over the heads
    grad_offsets,
    grad_logits,
    num_queries,
    num_positions,
    HEADS: tl.constexpr,
    POINTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    SIDES: tl.constexpr,
    BILINEAR: tl.constexpr,
    PADDED: tl.constexpr,
    WIDE: tl.constexpr,
    NUMBER: tl.constexpr,
    EXACT: tl.constexpr,
    OF_REFERENCES: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    image, head, queries = _own_part(num_queries, HEADS, BLOCK_Q)
    channels, columns, levels = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_L)
    there, real = queries < num_queries, channels < CHANNELS
    rows = image.to(tl.int64) * num_queries + queries
    first = (image.to(tl.int64) * num_positions * HEADS + head) * CHANNELS
    value += first
    grad_value += first
    padding += image.to(tl.int64) * num_positions
    largest, total = _softmax_of(logits, rows * HEADS + head, there, POINTS, BLOCK_P, NUMBER)
    from_ = grad + ((rows * HEADS + head) * CHANNELS)[:, None] + channels[None, :]
    wanted = tl.load(from_, mask=there[:, None] & real[None, :], other=0.0).to(NUMBER)
    unit = tl.load(scale) if EXACT else 1.0

    of_weights = tl.zeros([BLOCK_Q, BLOCK_P], NUMBER)
    of_x, of_y = tl.zeros([BLOCK_Q, BLOCK_L], NUMBER), tl.zeros([BLOCK_Q, BLOCK_L], NUMBER)
    of_width, of_height = tl.zeros([BLOCK_Q, BLOCK_L], NUMBER), tl.zeros([BLOCK_Q, BLOCK_L], NUMBER)
    for point in range(POINTS):
        height, width, start = (
            tl.load(table + 5 * point),
            tl.load(table + 5 * point + 1),
            tl.load(table + 5 * point + 2),
        )
        at = (rows * HEADS + head) * POINTS + point
        x, y, dx, dy, step_x, step_y = _place(references, offsets, table, rows, at, there, point, LEVELS, SIDES, NUMBER)
        weight = tl.exp(tl.load(logits + at, mask=there, other=0.0).to(NUMBER) - largest) / total
        of_weight = tl.zeros([BLOCK_Q], NUMBER)
        if BILINEAR:
            column, right = _cell(x, width, NUMBER)
            line, below = _cell(y, height, NUMBER)
            slope_x, slope_y = tl.zeros([BLOCK_Q], NUMBER), tl.zeros([BLOCK_Q], NUMBER)
            for down in tl.static_range(2):
                share_y, sign_y = (below if down else 1 - below), (1.0 if down else -1.0)
                for over in tl.static_range(2):
                    share_x, sign_x = (right if over else 1 - right), (1.0 if over else -1.0)
                    near, position, inside = _read(
                        value, padding, column + over, line + down, width, height, start, there, channels, real,
                        HEADS, CHANNELS, PADDED, WIDE, NUMBER,
                    )  # fmt: skip
                    product = tl.sum(near * wanted, 1)
                    of_weight += share_x * share_y * product
                    slope_x += sign_x * share_y * product
                    slope_y += sign_y * share_x * product
                    _add(
                        grad_value, position, (weight * share_x * share_y)[:, None] * wanted, inside, channels, real,
                        unit, HEADS, CHANNELS, EXACT,
                    )  # fmt: skip
            slope_x, slope_y = slope_x * weight, slope_y * weight
            tl.store(grad_offsets + 2 * at, (slope_x * step_x).to(grad_offsets.dtype.element_ty), mask=there)
            tl.store(grad_offsets + 2 * at + 1, (slope_y * step_y).to(grad_offsets.dtype.element_ty), mask=there)
            if OF_REFERENCES:
                level, count = tl.load(table + 5 * point + 4), tl.load(table + 5 * point + 3)
                own = (levels == level)[None, :] if LEVELS > 1 else (levels == 0)[None, :]
                of_x += tl.where(own, (slope_x * width)[:, None], 0.0)
                of_y += tl.where(own, (slope_y * height)[:, None], 0.0)
                if SIDES == 4:
                    half = 0.5 / count.to(NUMBER)
                    of_width += tl.where(own, (slope_x * dx * width * half)[:, None], 0.0)
                    of_height += tl.where(own, (slope_y * dy * height * half)[:, None], 0.0)
        else:
            near, position, inside = _read(
                value, padding, _nearest(x, width), _nearest(y, height), width, height, start, there, channels, real,
                HEADS, CHANNELS, PADDED, WIDE, NUMBER,
            )  # fmt: skip
            of_weight += tl.sum(near * wanted, 1)
            _add(
                grad_value, position, weight[:, None] * wanted, inside, channels, real,
                unit, HEADS, CHANNELS, EXACT,
            )  # fmt: skip
        of_weights = tl.where((columns == point)[None, :], of_weight[:, None], of_weights)

    at = ((rows * HEADS + head) * POINTS)[:, None] + columns[None, :]
    mask = there[:, None] & (columns < POINTS)[None, :]
    weights = (
        tl.exp(tl.load(logits + at, mask=mask, other=-float("inf")).to(NUMBER) - largest[:, None]) / total[:, None]
    )
    of_logits = weights * (of_weights - tl.sum(weights * of_weights, 1)[:, None])
    tl.store(grad_logits + at, of_logits.to(grad_logits.dtype.element_ty), mask=mask)
    if OF_REFERENCES:
        at = (((rows * HEADS + head) * LEVELS)[:, None] + levels[None, :]) * SIDES
        mask = there[:, None] & (levels < LEVELS)[None, :]
        tl.store(grad_references + at, of_x, mask=mask)
        tl.store(grad_references + at + 1, of_y, mask=mask)
        if SIDES == 4:
            tl.store(grad_references + at + 2, of_width, mask=mask)
            tl.store(grad_references + at + 3, of_height, mask=mask)


@triton.jit
def _own_part(num_queries, HEADS: tl.constexpr, BLOCK_Q: tl.constexpr):
    """Image, head and queries [BLOCK_Q] of this program; those of one head lie beside each other."""
    blocks = (num_queries + BLOCK_Q - 1) // BLOCK_Q
    several = tl.program_id(0) // blocks
    queries = (tl.program_id(0) % blocks) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    return several // HEADS, several % HEADS, queries


@triton.jit
def _softmax_of(logits, heads, there, POINTS: tl.constexpr, BLOCK_P: tl.constexpr, NUMBER: tl.constexpr):
    """The largest logit of each row, and the sum of the exponentials of what is left without it: both [BLOCK_Q]"""
    columns = tl.arange(0, BLOCK_P)
    mask = there[:, None] & (columns < POINTS)[None, :]
    row = tl.load(logits + (heads * POINTS)[:, None] + columns[None, :], mask=mask, other=-float("inf")).to(NUMBER)
    largest = tl.where(there, tl.max(row, 1), 0.0)
    total = tl.sum(tl.exp(row - largest[:, None]), 1)
    return largest, tl.where(there, total, 1.0)


@triton.jit
def _place(
    references, offsets, table, rows, at, there, point,
    LEVELS: tl.constexpr, SIDES: tl.constexpr, NUMBER: tl.constexpr,
):  # fmt: skip
    """x, y in positions of the level, (0, 0) the middle of the first; the offset; how far an offset of 1 goes."""
    height, width = tl.load(table + 5 * point).to(NUMBER), tl.load(table + 5 * point + 1).to(NUMBER)
    reference = references + rows * (LEVELS * SIDES)
    if LEVELS > 1:
        reference += tl.load(table + 5 * point + 4) * SIDES
    x = tl.load(reference, mask=there, other=0.0).to(NUMBER)
    y = tl.load(reference + 1, mask=there, other=0.0).to(NUMBER)
    dx = tl.load(offsets + 2 * at, mask=there, other=0.0).to(NUMBER)
    dy = tl.load(offsets + 2 * at + 1, mask=there, other=0.0).to(NUMBER)
    if SIDES == 4:
        half = 0.5 / tl.load(table + 5 * point + 3).to(NUMBER)
        step_x = tl.load(reference + 2, mask=there, other=0.0).to(NUMBER) * half * width
        step_y = tl.load(reference + 3, mask=there, other=0.0).to(NUMBER) * half * height
    else:
        step_x, step_y = tl.zeros_like(x) + 1, tl.zeros_like(y) + 1
    return x * width + dx * step_x - 0.5, y * height + dy * step_y - 0.5, dx, dy, step_x, step_y


@triton.jit
def _cell(x, size, NUMBER: tl.constexpr):
    """The whole number below, kept near the map; and how far x is beyond it, in [0, 1)"""
    below = tl.floor(x)
    kept = tl.minimum(tl.maximum(below, -2.0), size.to(NUMBER) + 1.0)
    return kept.to(tl.int32), x - below


@triton.jit
def _nearest(x, size):
    whole = tl.floor(x + 1.0)  # x is 0 in the middle of the first position, which begins half a position before
    return tl.minimum(tl.maximum(whole, 0.0), (size - 1).to(x.dtype)).to(tl.int32)


@triton.jit
def _read(
    value, padding, column, line, width, height, start, there, channels, real,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, PADDED: tl.constexpr, WIDE: tl.constexpr, NUMBER: tl.constexpr,
):  # fmt: skip
    """The value at (column, line) [BLOCK_Q, BLOCK_D], zeros outside and where there is no image; where that lies."""
    inside = there & (column >= 0) & (column < width) & (line >= 0) & (line < height)
    position = start + line * width + column
    if PADDED:
        inside = inside & (tl.load(padding + position, mask=inside, other=1) == 0)
    if WIDE:
        position = position.to(tl.int64)
    from_ = value + (position * (HEADS * CHANNELS))[:, None] + channels[None, :]
    near = tl.load(from_, mask=inside[:, None] & real[None, :], other=0.0).to(NUMBER)
    return near, position, inside


@triton.jit
def _add(
    into, position, amounts, inside, channels, real, unit,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Whole numbers have the same sum in any order, which is what EXACT is for."""
    at = into + (position * (HEADS * CHANNELS))[:, None] + channels[None, :]
    mask = inside[:, None] & real[None, :]
    if EXACT:
        tl.atomic_add(at, (amounts * unit).to(tl.int64), mask=mask, sem="relaxed")
    else:
        tl.atomic_add(at, amounts, mask=mask, sem="relaxed")
