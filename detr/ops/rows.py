"""Sums into, and products with, chosen rows of a matrix, always in one order."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NUMBERS_AT_ONCE = {"cpu": 1 << 18}
_OTHERWISE = 1 << 28
"""On a CPU what its cache holds of the rows read; elsewhere 1 GB, as each step is a launch."""


def products_with_rows(vectors: Tensor, matrix: Tensor, rows: Tensor) -> Tensor:
    """vectors [N, D], matrix [R, D], for each vector K rows of it [N, K] int32 -> inner products [N, K]"""
    products = vectors.new_empty(rows.shape)
    step = max(1, _NUMBERS_AT_ONCE.get(rows.device.type, _OTHERWISE) // (rows.shape[1] * matrix.shape[1]))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        picked = matrix.index_select(0, some.flatten()).unflatten(0, some.shape)
        torch.sum(picked.mul_(vectors[start : start + step, None]), -1, out=products[start : start + step])
    return products


def sums_into_rows(vectors: Tensor, rows: Tensor, shares: Tensor, num_rows: int) -> Tensor:
    """vectors [N, D], for each K rows [N, K] int32 and shares [N, K] -> matrix [R, D], the sums of what rows are given.

    `index_add_` does that in any order on a CUDA device; here the rows are sorted, and each is the sum of a bag.
    """
    places, order = rows.flatten(), rows.flatten().sort(stable=True).indices
    starts = F.pad(places.bincount(minlength=num_rows).cumsum(0), (1, -1)).int()
    sources = (order // rows.shape[1]).int()
    return F.embedding_bag(
        sources, vectors, starts, mode="sum", per_sample_weights=shares.flatten().index_select(0, order)
    )
