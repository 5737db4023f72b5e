"""Numbers on their way from a GPU to the host, which goes on meanwhile."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_QUEUED = ("cuda",)
"""Devices that copy to the host without its waiting."""


class Arriving:
    """A copy of some numbers, queued behind what the device still has to do, and read when it is there.

    Reading waits for what was queued before the copy, not for what came after it.
    """

    def __init__(self, values: Tensor) -> None:
        queued = values.device.type in _QUEUED
        self._there = torch.cuda.Event() if queued else None
        self._copy = values.detach().to("cpu", non_blocking=queued)
        if self._there is not None:
            self._there.record(torch.cuda.current_stream(values.device))

    def numpy(self) -> NDArray[Any]:
        if self._there is not None:
            self._there.synchronize()
        return self._copy.numpy()
