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


class SumsIntoRows:
    """vectors [N, D], rows [N * P] int32, shares [K, N * P] -> K matrices [R, D], as many rows at a time as one wants.

    Row r of a matrix is the sum of the vectors' shares for which `rows` is r; each P rows are of the same vector.
    `index_add_` would do that in any order on a CUDA device; here the rows are sorted, and each is one sum.
    """

    def __init__(self, vectors: Tensor, rows: Tensor, shares: Tensor, borders: list[int]) -> None:
        """borders: the rows at which the rows asked for begin and end"""
        self.order = rows.sort(stable=True).indices
        self.sources = (self.order // max(1, len(rows) // max(1, len(vectors)))).int()
        ends = rows.bincount(minlength=borders[-1]).cumsum(0)
        self.starts = F.pad(ends, (1, 0)).int()
        self.places = dict(zip(borders, self.starts[borders].tolist(), strict=True))
        self.vectors, self.shares = vectors, shares

    def between(self, first: int, last: int, matrix: int) -> Tensor:
        """Rows first to last of one of the matrices [last - first, D], both among the borders."""
        start, end = self.places[first], self.places[last]
        starts = self.starts[first:last] - start
        shares = self.shares[matrix].index_select(0, self.order[start:end])
        return F.embedding_bag(self.sources[start:end], self.vectors, starts, mode="sum", per_sample_weights=shares)


@functools.cache
def _say_nothing_of_sparse_tensors() -> None:
    """PyTorch warns once in a process that they may change; we use one thing of them, and test it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int32), [], torch.zeros(0), (0, 0), check_invariants=False)
