"""The stages that a picture goes through, and what goes from one to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from detr.models.proposals import Proposals, ProposalSelection
from detr.models.queries import Memory, QuerySelection

STAGES = ("decode", "resize", "normalise", "backbone", "encoder", "selection", "decoder", "postprocessing")
"""In the order in which they are passed. Networks whose queries are learned have no selection."""

POSITIONS, START = "selection.positions", "selection.boxes"


def stage_of(name: str) -> str:
    """`encoder.2` -> `encoder`"""
    return name.partition(".")[0]


@contextmanager
def borders(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, a pass of the network leaves there what its stages hand on: `encoder.1`, `selection.positions`, ..."""
    seen: dict[str, Tensor] = {}
    handles = [
        _after(network.get_submodule("backbone"), lambda given, answer: _numbered(seen, "backbone", answer)),
        _after(network.get_submodule("encoder"), lambda given, answer: _numbered(seen, "encoder", _tensors(answer))),
    ]
    for module in network.modules():
        if isinstance(module, (QuerySelection, ProposalSelection)):
            handles.append(_after(module, lambda given, answer: _selected(seen, given[0], answer)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _after(module: nn.Module, note: Any) -> Any:
    return module.register_forward_hook(lambda module, given, answer: note(given, answer))


def _selected(seen: dict[str, Tensor], memory: Memory, answer: Any) -> None:
    """What the choice is made of is the encoder's: maps may be projected on the way."""
    _numbered(seen, "encoder", [memory.tokens])
    seen[POSITIONS] = answer.positions
    seen[START] = answer.chosen.boxes if isinstance(answer, Proposals) else answer.boxes


def _tensors(answer: Any) -> list[Tensor]:
    return list(answer) if isinstance(answer, (list, tuple)) else [answer.tokens]


def _numbered(seen: dict[str, Tensor], stage: str, tensors: Any) -> None:
    """One after the other; what is there already isn't noted twice."""
    for tensor in tensors:
        if not any(tensor is each for each in seen.values()):
            seen[f"{stage}.{sum(stage_of(name) == stage for name in seen)}"] = tensor
