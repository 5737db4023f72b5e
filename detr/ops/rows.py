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


def sums_into_rows(vectors: Tensor, rows: Tensor, shares: Tensor, num_rows: int, points: int) -> Tensor:
    """shares [K, N * P] of vectors [N, D], each P times, added to the rows [N * P] int32 of K matrices [K, R, D].

    `index_add_` would do that in any order on a CUDA device; here the rows are sorted, and each is one sum.
    """
    in_order, order = rows.sort(stable=True)
    starts = torch.searchsorted(in_order, torch.arange(num_rows, dtype=torch.int32, device=rows.device), out_int32=True)
    sources = (order // points).int()
    return torch.stack(
        [
            F.embedding_bag(sources, vectors, starts, mode="sum", per_sample_weights=share.index_select(0, order))
            for share in shares
        ]
    )


@functools.cache
def _say_nothing_of_sparse_tensors() -> None:
    """PyTorch warns once in a process that they may change; we use one thing of them, and test it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int32), [], torch.zeros(0), (0, 0), check_invariants=False)
