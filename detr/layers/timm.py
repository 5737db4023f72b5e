"""The door to timm, which is an extra: the package itself, and its blocks of channel attention."""

from __future__ import annotations

from types import ModuleType
from typing import Literal, get_args

from torch import nn

from detr.extras import require

ChannelAttention = Literal["none", "se", "eca", "cbam"]
"""Squeeze-and-excitation (Hu et al. 2018), ECA (Wang et al. 2020), CBAM (Woo et al. 2018), or nothing."""


def timm_package() -> ModuleType:
    """timm; UsageError with the line to type where it isn't installed."""
    require("timm", "this setting")
    import timm

    return timm


def with_frozen_norms(module: nn.Module) -> nn.Module:
    """Every batch norm in it as a fixed scale and shift."""
    timm_package()
    from timm.layers import freeze_batch_norm_2d

    return freeze_batch_norm_2d(module)


def channel_attention(kind: ChannelAttention, channels: int) -> nn.Module:
    """[B, D, h, w] -> the same shape, each channel (CBAM: each place too) weighted by what the whole map holds."""
    assert kind in get_args(ChannelAttention)
    if kind == "none":
        return nn.Identity()
    timm_package()
    from timm.layers import create_attn

    block = create_attn(kind, channels)
    assert block is not None
    return block
