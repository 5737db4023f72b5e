"""Convolutions with their norm, and how they fold into one convolution for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm as a fixed scale and shift: the statistics and the affine part are buffers, in training too."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = scale_and_shift(self)
        return x * scale[:, None, None] + shift[:, None, None]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Weights of a norm that was not frozen fit too: how many batches it has seen doesn't matter here."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def scale_and_shift(norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """[C], [C] such that the norm in evaluation is `x * scale + shift`."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale


class ConvNorm(nn.Module):
    """Convolution without bias, norm, activation. At stride 1 an odd kernel keeps the size, an even one takes 1 off."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
        frozen_norm: bool = False,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, padding, dilation=dilation, groups=groups, bias=False
        )
        self.norm: FrozenBatchNorm2d | nn.BatchNorm2d | nn.Identity = (
            FrozenBatchNorm2d(channels_out) if frozen_norm else nn.BatchNorm2d(channels_out)
        )
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))

    def residual(self, x: Tensor, shortcut: Tensor, activation: nn.Module) -> Tensor:
        """`activation(self(x) + shortcut)`, in one pass where the convolution is packed (`detr.layers.packed`)."""
        in_one_pass = getattr(self.conv, "residual", None)
        if in_one_pass is not None:
            return in_one_pass(x, shortcut, activation)
        return activation(self(x) + shortcut)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the norm into the convolution; for inference only, and exact but for rounding."""
        if isinstance(self.norm, nn.Identity):
            return
        kernel, bias = fused(self)
        self.conv = with_bias(self.conv, kernel, bias)
        self.norm = nn.Identity()


class AffineReLU(nn.Module):
    """ReLU, scaled and shifted by two learned numbers (the learnable affine block of PP-HGNetV2)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.relu() + self.bias


class RepVGGBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side in training, one 3x3 for inference (Ding et al. 2021); no identity."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv3x3: ConvNorm | None = ConvNorm(channels, channels, kernel=3)
        self.conv1x1: ConvNorm | None = ConvNorm(channels, channels)
        self.fused: nn.Conv2d | None = None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is not None:
            return self.activation(self.fused(x))
        assert self.conv3x3 is not None and self.conv1x1 is not None
        return self.activation(self.conv3x3(x) + self.conv1x1(x))

    @torch.no_grad()
    def fuse(self) -> None:
        """Become one convolution; for inference only, and exact but for rounding."""
        if self.fused is not None:
            return
        assert self.conv3x3 is not None and self.conv1x1 is not None
        wide, wide_bias = fused(self.conv3x3)
        narrow, narrow_bias = fused(self.conv1x1)
        kernel = wide + nn.functional.pad(narrow, (1, 1, 1, 1))
        self.fused = with_bias(self.conv3x3.conv, kernel, wide_bias + narrow_bias)
        self.conv3x3 = self.conv1x1 = None


def fused(block: ConvNorm) -> tuple[Tensor, Tensor]:
    """Kernel and bias of the one convolution that equals convolution and norm in evaluation."""
    assert not isinstance(block.norm, nn.Identity), "this block is fused already"
    scale, shift = scale_and_shift(block.norm)
    return block.conv.weight * scale[:, None, None, None], shift


def with_bias(conv: nn.Conv2d, kernel: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the same places with another kernel and bias."""
    result = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        groups=conv.groups,
        device="meta",
    )
    result.weight = nn.Parameter(kernel)
    result.bias = nn.Parameter(bias)
    return result
