"""Convolutions for a CPU with their kernels stored as oneDNN multiplies them, and the activation in the same pass.

The operators are those that `torch.compile` puts in a convolution's place; here they are used without compiling. They
are nobody's promise, so `packable` asks whether they are there and take what they are given, and only an x86 processor
is asked.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

from detr.layers.conv import ConvNorm, RepVGGBlock

_OPS: Any = torch.ops.mkldnn
_OPERATORS = {
    "_reorder_convolution_weight": ("self", "padding", "stride", "dilation", "groups", "input_size"),
    "_convolution_pointwise": (
        "X", "W", "B", "padding", "stride", "dilation", "groups", "attr", "scalars", "algorithm",
    ),
    "_convolution_pointwise.binary": (
        "X", "other", "W", "B", "padding", "stride", "dilation", "groups", "binary_attr", "alpha", "unary_attr",
        "unary_scalars", "unary_algorithm",
    ),
}  # fmt: skip
_ACTIVATIONS: dict[type[nn.Module], tuple[str, str]] = {
    nn.Identity: ("none", ""),
    nn.ReLU: ("relu", ""),
    nn.SiLU: ("swish", ""),
    nn.GELU: ("gelu", "none"),
}


class PackedConv(nn.Module):
    """A convolution and its activation; the kernel is stored anew at the first call, which shows the images' size."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = conv.weight.detach().to(dtype)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.places = conv.padding, conv.stride, conv.dilation, conv.groups
        self.activation = _ACTIVATIONS[type(activation)]
        self.is_packed = False

    def forward(self, x: Tensor) -> Tensor:
        x = self._ready(x)
        name, algorithm = self.activation
        return _OPS._convolution_pointwise(x, self.weight, self.bias, *self.places, name, [], algorithm)

    def residual(self, x: Tensor, shortcut: Tensor, activation: nn.Module) -> Tensor:
        """`activation(self(x) + shortcut)`; of ReLU in one pass."""
        if self.activation[0] != "none" or not isinstance(activation, nn.ReLU):
            return activation(self(x) + shortcut)
        x, shortcut = self._ready(x), shortcut.to(self.weight.dtype)
        return _OPS._convolution_pointwise.binary(
            x, shortcut, self.weight, self.bias, *self.places, "add", 1.0, "relu", [], None
        )

    def _ready(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if not self.is_packed:
            self.weight = _OPS._reorder_convolution_weight(self.weight, *self.places, list(x.shape))
            self.is_packed = True
        return x


def packable() -> bool:
    """Whether this processor and this PyTorch have the operators, with the arguments known here."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    for name, arguments in _OPERATORS.items():
        name, _, overload = name.partition(".")
        operator = getattr(getattr(_OPS, name, None), overload or "default", None)
        if operator is None or tuple(argument.name for argument in operator._schema.arguments) != arguments:
            return False
    return True


def pack(network: nn.Module, dtype: torch.dtype = torch.float32) -> int:
    """Pack the folded convolutions of a network that is on the CPU and for inference only; how many there were."""
    count = 0
    for module in network.modules():
        if type(getattr(module, "activation", None)) not in _ACTIVATIONS:
            continue
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.Identity):
            place = "conv"
        elif isinstance(module, RepVGGBlock) and module.fused is not None:
            place = "fused"
        else:
            continue
        setattr(module, place, PackedConv(getattr(module, place), module.activation, dtype))
        module.activation = nn.Identity()
        count += 1
    return count
