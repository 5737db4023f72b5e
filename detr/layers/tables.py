"""Tables that follow from sizes alone, computed once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Table = TypeVar("Table")


def kept(make: Callable[..., Table]) -> Callable[..., Table]:
    """`make`, which keeps the last 64 tables it made, by its arguments; they are not to be written to.

    While a graph is recorded (`torch.compile`, `torch.export`) it makes them anew: they become a part of the graph,
    and no stand-in of a tensor is kept beyond it. `make` computes where the table is to be: a step on the CPU within
    the graph of a GPU would keep that from being replayed (CUDA graphs).
    """
    keep = functools.lru_cache(maxsize=64)(torch.inference_mode(False)(torch.no_grad()(make)))

    @functools.wraps(make)
    def give(*arguments: Any, **named: Any) -> Table:
        return make(*arguments, **named) if torch.compiler.is_compiling() else keep(*arguments, **named)

    return give
