"""Matching, losses, and the criterion that a network is trained with."""

from __future__ import annotations

from typing import Any

from torch import nn

from detr.criterion.criterion import Criterion, CriterionConfig
from detr.criterion.matcher import MatcherConfig
from detr.errors import UsageError

__all__ = ["Criterion", "CriterionConfig", "MatcherConfig", "criterion_for"]


def criterion_for(network: nn.Module, config: CriterionConfig | None = None) -> Criterion:
    """The criterion that trains this network, its losses under the official names of the network's paper."""
    model: Any = network.config
    if model.arch != "rtdetr":
        raise UsageError(f"no criterion is known for a network of arch {model.arch!r}; known: 'rtdetr'")
    return Criterion(config, proposals="aux" if model.version == 1 else "enc_0")
