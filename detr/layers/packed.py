"""Convolutions and linear layers for a CPU, stored as oneDNN multiplies them, activations in the same pass.

The operators are those that `torch.compile` puts in a convolution's place; here they are used without compiling. They
are nobody's promise, so `packable` asks whether they are there and take what they are given, and only an x86 processor
is asked.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr.layers.conv import ConvNorm, RepVGGBlock
from detr.layers.winograd import WinogradConv

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
    "_reorder_linear_weight": ("self", "batch_size"),
    "_linear_pointwise": ("X", "W", "B", "attr", "scalars", "algorithm"),
}  # fmt: skip
_ACTIVATIONS: dict[type[nn.Module], tuple[str, str]] = {
    nn.Identity: ("none", ""),
    nn.ReLU: ("relu", ""),
    nn.SiLU: ("swish", ""),
    nn.GELU: ("gelu", "none"),
}
_FEWEST_NUMBERS = 16_384  # of a linear layer: smaller matrices are multiplied faster as they are


class _Packed(nn.Module):
    """A layer whose weight is stored anew at the first call: once, though threads may come to it together."""

    weight: Tensor
    is_packed = False
    _packing = threading.Lock()

    def pack_once(self, stored: Callable[[Tensor], Tensor]) -> None:
        if self.is_packed:
            return
        with self._packing:
            if not self.is_packed:
                self.weight = stored(self.weight)
                self.is_packed = True


class PackedConv(_Packed):
    """A convolution and its activation; the first call shows the images' size."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = conv.weight.detach().to(dtype)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.places = conv.padding, conv.stride, conv.dilation, conv.groups
        self.activation = _ACTIVATIONS[type(activation)]

    def forward(self, x: Tensor) -> Tensor:
        x = self._ready(x)
        name, algorithm = self.activation
        return _OPS._convolution_pointwise(x, self.weight, self.bias, *self.places, name, [], algorithm)

    def residual(self, x: Tensor, shortcut: Tensor, activation: nn.Module) -> Tensor:
        """`activation(self(x) + shortcut)`; the sum and ReLU in the same pass."""
        shortcut = shortcut.to(self.weight.dtype)
        if self.activation[0] != "none" or _lies_either_way(shortcut):
            return activation(self(x) + shortcut)
        x = self._ready(x)
        relu = "relu" if isinstance(activation, nn.ReLU) else None
        total = _OPS._convolution_pointwise.binary(
            x, shortcut, self.weight, self.bias, *self.places, "add", 1.0, relu, [], None
        )
        return total if relu else activation(total)

    def _ready(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        self.pack_once(lambda weight: _OPS._reorder_convolution_weight(weight, *self.places, list(x.shape)))
        return x


class PackedLinear(_Packed):
    """A linear layer; the first call shows how many rows there are."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        self.pack_once(lambda weight: _OPS._reorder_linear_weight(weight, x.shape[:-1].numel()))
        return _OPS._linear_pointwise(x.contiguous(), self.weight, self.bias, "none", [], "")


class ConvLinear(nn.Module):
    """A linear layer as a convolution of single pixels: what the compiler packs in oneDNN's way, and faster with it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        answers = F.conv2d(pixels, self.weight[..., None, None], self.bias)
        return answers.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


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
    """Pack folded convolutions and linear layers of a network on the CPU, for inference only; how many there were."""
    count = 0
    for module in list(network.modules()):
        linears = ((name, PackedLinear(linear, dtype)) for name, linear in _large_linears(module))
        for name, packed in [*linears, *_packed_convolutions(module, dtype)]:
            setattr(module, name, packed)
            count += 1
    return count


def convolve_linears(network: nn.Module) -> int:
    """Have linear layers compiled as convolutions of pixels, for inference only; how many there were."""
    found = [(module, *linear) for module in network.modules() for linear in _large_linears(module)]
    for module, name, linear in found:
        setattr(module, name, ConvLinear(linear))
    return len(found)


def _lies_either_way(maps: Tensor) -> bool:
    """Maps of one position or channel: they lie in both layouts, which PyTorch 2.10 refuses to add in one pass."""
    return maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)


def _large_linears(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, child in module.named_children():
        if type(child) is nn.Linear and child.weight.numel() >= _FEWEST_NUMBERS:
            yield name, child


def _packed_convolutions(module: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, nn.Module]]:
    """The convolution that a block consists of, which takes the block's activation with it; the products of tiles."""
    if isinstance(module, WinogradConv):
        yield "products", PackedConv(module.products, nn.Identity(), dtype)
        return
    if isinstance(module, ConvNorm) and isinstance(module.norm, nn.Identity) and isinstance(module.conv, nn.Conv2d):
        place = "conv"
    elif isinstance(module, RepVGGBlock) and isinstance(module.fused, nn.Conv2d):
        place = "fused"
    else:
        return
    if type(module.activation) in _ACTIVATIONS:
        packed = PackedConv(getattr(module, place), module.activation, dtype)
        module.activation = nn.Identity()
        yield place, packed
