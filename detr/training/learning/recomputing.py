"""Memory for time: layers that forget what they computed, and compute it again when gradients are wanted."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detr.layers.deformable import DeformableDecoderLayer, DeformableEncoderLayer
from detr.layers.transformer import DecoderLayer, EncoderLayer
from detr.models.network import DetectionNetwork

LAYERS = (EncoderLayer, DecoderLayer, DeformableEncoderLayer, DeformableDecoderLayer)


def recompute(network: DetectionNetwork) -> int:
    """Of the network's layers and the stages of its backbone keep only what goes in; how many they are.

    Losses and gradients stay what they are, to the last bit where a layer computes the same bits twice (Chen et al.
    2016): draws are repeated, and norms don't count a batch again.
    """
    backbone: Any = network.backbone
    stages = [stage for stage in backbone.stages if any(each.requires_grad for each in stage.parameters())]
    modules = [*stages, *(module for module in network.modules() if isinstance(module, LAYERS))]
    for module in modules:
        module.__class__ = _recomputing(type(module))  # type: ignore[arg-type]  # a class can be hashed
    return len(modules)


@functools.cache
def _recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    """The same class, but for what a call does in training; unlike a wrapper it leaves all names as they are."""

    def call(self: nn.Module, *given: Any, **named: Any) -> Any:
        compute = functools.partial(kind.__call__, self)
        if not (self.training and torch.is_grad_enabled()):
            return compute(*given, **named)
        return checkpoint(
            compute, *given, use_reentrant=False, context_fn=lambda: (nullcontext(), _without_counting(self)), **named
        )

    return type(kind.__name__, (kind,), {"__call__": call, "__doc__": kind.__doc__, "__module__": kind.__module__})


def _without_counting(module: nn.Module) -> AbstractContextManager[None]:
    return _norms_at_rest([each for each in module.modules() if isinstance(each, _BatchNorm) and each.training])


@contextmanager
def _norms_at_rest(norms: list[_BatchNorm]) -> Iterator[None]:
    """Inside, norms in training leave their statistics as they are."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
