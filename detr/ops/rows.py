"""Sums into, and products with, chosen rows of a matrix, always in one order; on a CPU without a copy of the rows."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor
from torch.nn import functional as F


def products_with_rows(vectors: Tensor, matrix: Tensor, rows: Tensor) -> Tensor:
    """vectors [N, D], matrix [R, D], rows [N, K] int32 of it -> inner products [N, K]"""
    if matrix.device.type != "cpu":
        return (matrix.index_select(0, rows.flatten()).unflatten(0, rows.shape) * vectors[:, None]).sum(-1)
    _say_nothing_of_sparse_tensors()
    num, each = rows.shape
    ends = torch.arange(0, num * each + 1, each, dtype=torch.int32)
    wanted = torch.sparse_csr_tensor(
        ends, rows.flatten(), vectors.new_zeros(num * each), (num, len(matrix)), check_invariants=False
    )
    return torch.sparse.sampled_addmm(wanted, vectors, matrix.T, beta=0).values().view(rows.shape)


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


@functools.cache
def _say_nothing_of_sparse_tensors() -> None:
    """PyTorch warns once in a process that they may change; we use one thing of them, and test it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int32), [], torch.zeros(0), (0, 0), check_invariants=False)
