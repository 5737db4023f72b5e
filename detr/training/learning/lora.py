"""Low-rank adaptation (LoRA, Hu et al. 2021): linear layers stay as they are, and learn a product of two thin matrices.

The product is added to the weight itself, by `torch.nn.utils.parametrize`: attention here reads its matrix in parts,
and layers that were put in place of the linear ones, as the library peft does it, would have no effect there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from detr.config import Config
from detr.errors import UsageError
from detr.models.network import DetectionNetwork
from detr.training.learning.freeze import freeze

Part = Literal["backbone", "encoder", "decoder"]


class LoraConfig(Config):
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)  # the product counts alpha / rank times
    parts: tuple[Part, ...] = Field(default=("backbone", "encoder", "decoder"), min_length=1)


class LowRank(nn.Module):
    """weight [out, in] -> weight + alpha / rank * up @ down; at first that is the weight, as `up` is zero."""

    def __init__(self, weight: Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # as it is merged in the end
            return weight + self.scale * (self.up @ self.down)


def adapt(network: DetectionNetwork, config: LoraConfig, say: Callable[[str], None]) -> list[nn.Module]:
    """Freeze all but the heads, and add what learns in the linear layers of the parts; the frozen modules.

    UsageError where the parts have no linear layer.
    """
    linears = _linears(network, config)
    frozen = freeze(network, "all but heads")
    add_adapters(network, config, linears)
    numbers = [parameter.numel() for parameter in network.parameters() if parameter.requires_grad]
    every = sum(parameter.numel() for parameter in network.parameters())
    say(
        f"LoRA of rank {config.rank} in {len(linears)} linear layers of {', '.join(config.parts)}; "
        f"with the heads {sum(numbers):,} of {every:,} numbers learn"
    )
    return frozen


def add_adapters(network: DetectionNetwork, config: LoraConfig, linears: list[nn.Linear] | None = None) -> None:
    for linear in _linears(network, config) if linears is None else linears:
        low = LowRank(linear.weight, rank=config.rank, alpha=config.alpha)
        parametrize.register_parametrization(linear, "weight", low)


def merged(network: DetectionNetwork) -> DetectionNetwork:
    """The network with the products added to its weights, in a copy where there are such: any program reads it."""
    if not any(isinstance(module, LowRank) for module in network.modules()):
        return network
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            _merge(module)
    return plain


@torch.no_grad()
def _merge(linear: nn.Linear) -> None:
    """By hand: `remove_parametrizations` would change the class, which a copy shares with what it was copied from."""
    weight, bias = linear.weight.clone(), linear._parameters.pop("bias")
    del linear.parametrizations
    linear.__class__ = type(linear).__bases__[0]
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.register_parameter("bias", bias)


def _linears(network: DetectionNetwork, config: LoraConfig) -> list[nn.Linear]:
    """Those of the parts that learn and that a gradient reaches; the heads learn as they are."""
    heads = {module for head in network.heads() for module in head.modules()}
    found = [
        module
        for part in config.parts
        for module in getattr(network, part).modules()
        if isinstance(module, nn.Linear) and module not in heads and module.weight.requires_grad
    ]
    if not found:
        raise UsageError(f"train.lora finds no linear layer in {', '.join(config.parts)} of this network")
    return found
