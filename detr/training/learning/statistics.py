"""What a forward pass changes in a network, the statistics of its batch norms, put back where a step is left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Statistics:
    """Copies of the running statistics of all batch norms that are in training, as they are now."""

    def __init__(self, network: nn.Module) -> None:
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in buffers:
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        self._kept = [(group, _in_one_row(group)) for group in by_dtype.values()]

    @torch.no_grad()
    def put_back(self, condition: Tensor) -> None:
        """The copies again, in place, if `condition` [] is true; nobody waits to know."""
        for buffers, before in self._kept:
            row = torch.where(condition, before, _in_one_row(buffers))
            parts = row.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)])


def _in_one_row(buffers: list[Tensor]) -> Tensor:
    """A few kernels for all, where one for each would take longer than the copying."""
    return torch.cat([buffer.reshape(-1) for buffer in buffers])
