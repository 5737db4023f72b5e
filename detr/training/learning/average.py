"""The exponential moving average of a network (EMA), which is what gets evaluated and published."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from detr.config import Config
from detr.training.learning.sharding import load, own

Network = TypeVar("Network", bound=nn.Module)
_Place = tuple[dict[str, Any], str]
"""Where a module holds a tensor, and its name there: when the module is moved, the tensor may be another one."""


class AverageConfig(Config):
    decay: float = Field(default=0.9999, ge=0, lt=1)
    warmup: int = Field(default=2000, ge=0)  # updates until the decay has risen to 63 % of its value


def decay_after(updates: int, config: AverageConfig) -> float:
    """decay * (1 - exp(-updates / warmup)): the first updates all but copy the network."""
    return config.decay * (1 - math.exp(-updates / config.warmup)) if config.warmup else config.decay


class Average(Generic[Network]):
    """A second network that follows the first one slowly: every floating entry, BatchNorm's statistics too.

    Integer entries (BatchNorm's counters) are copied. `network` is ready for evaluation and never needs gradients.
    """

    def __init__(self, network: Network, config: AverageConfig | None = None, *, place: Network | None = None) -> None:
        """`place`: a copy of the network to keep the average in, where it can't be copied here (it is shared out)."""
        self.config = config or AverageConfig()  # of now: the decay may be lowered on the way
        kept = copy.deepcopy(network) if place is None else place
        self.network: Network = kept.eval().requires_grad_(False)
        self._floating, self._counts = _places(self.network, floating=True), _places(self.network, floating=False)
        self._following, self._counted = _places(network, floating=True), _places(network, floating=False)
        self.updates = 0

    def set_decay(self, decay: float) -> None:
        """The decay from the next update on."""
        self.config = self.config.model_copy(update={"decay": decay})

    @torch.no_grad()
    def update(self, *, unless: Tensor | None = None) -> None:
        """One step towards the network; none, though it counts, if `unless` [] is true, which nobody waits to know."""
        self.updates += 1
        decay = decay_after(self.updates, self.config)
        floating, following = _tensors(self._floating), _tensors(self._following)
        if unless is None:
            torch._foreach_mul_(floating, decay)
            torch._foreach_add_(floating, following, alpha=1 - decay)
        else:
            own, other = (floating[0].new_full((), part) for part in (decay, 1 - decay))
            torch._foreach_mul_(floating, own.masked_fill(unless, 1.0))
            torch._foreach_add_(floating, torch._foreach_mul(following, other.masked_fill(unless, 0.0)))
        for mine, theirs in zip(_tensors(self._counts), _tensors(self._counted), strict=True):
            mine.copy_(theirs)

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        load(self.network, state)
        self.updates = updates


def _places(network: nn.Module, *, floating: bool) -> list[_Place]:
    """Of all entries of its `state_dict`, which itself takes long to make."""
    return [
        (holder, name)
        for module in network.modules()
        for holder, left_out in ((module._parameters, ()), (module._buffers, module._non_persistent_buffers_set))
        for name, value in holder.items()
        if value is not None and name not in left_out and value.is_floating_point() == floating
    ]


def _tensors(places: list[_Place]) -> list[Tensor]:
    """Those that hang there now; of those shared out, this process's parts."""
    return [own(holder[name]) for holder, name in places]
