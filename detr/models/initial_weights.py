"""How heads and projections start in the official code of RT-DETR and the models that came of it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from detr.layers.transformer import MLP

_FIRST_PROBABILITY = 0.01


@torch.no_grad()
def start_scores(heads: Iterable[nn.Module]) -> None:
    """Every class starts with probability 0.01, so that the many that are absent don't drown the few."""
    for head in heads:
        assert isinstance(head, nn.Linear)
        nn.init.constant_(head.bias, -math.log(1 / _FIRST_PROBABILITY - 1))


@torch.no_grad()
def start_at_zero(heads: Iterable[nn.Module]) -> None:
    """What a head says is added to something: at the start nothing."""
    for head in heads:
        assert isinstance(head, MLP)
        for parameter in head.layers[-1].parameters():
            nn.init.zeros_(parameter)


@torch.no_grad()
def spread(modules: Iterable[nn.Module]) -> None:
    """Xavier's uniform weights (Glorot and Bengio 2010) for every linear layer and convolution in `modules`."""
    for module in modules:
        for each in module.modules():
            if isinstance(each, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(each.weight)
