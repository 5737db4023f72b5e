"""Networks built without drawing their numbers, which come from a file or don't matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}
"""What all of PyTorch's random initialisations come to."""


class Undrawn(TorchFunctionMode):
    """Inside, random initialisations give zeros, and leave the global generator where it was.

    Drawing takes longer than reading the file. On the meta device it even loads PyTorch's compiler, for seconds.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        named = named or {}
        if function in _DRAWS:
            tensor = arguments[0] if arguments else named["tensor"]
            tensor.detach().zero_()
            return tensor
        return function(*arguments, **named)
