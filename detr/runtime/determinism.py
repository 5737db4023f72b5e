"""The same bits each time: what PyTorch has to be told for that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Inside, if that is wanted, only algorithms run that give the same bits each time; one that doesn't is an error.

    The same machine, versions and number of processes are taken for granted. Costs time on a GPU; on a CPU all that a
    training runs is of that kind anyway, and now known to be. Without the wish nothing is changed.
    """
    if not wanted:
        yield
        return
    memory: Any = deterministic
    convolutions: Any = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory, convolutions.benchmark
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # what cuBLAS asks for, before its first use
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # a help in finding errors, at the cost of a pass over each tensor
    convolutions.benchmark = False  # the fastest algorithm of a trial need not be that of the next
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]
        convolutions.benchmark = before[2]
