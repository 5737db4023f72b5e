"""Any feature extractor of timm by its name: convolutional pyramids, and vision transformers on one stride."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detr.config import Config
from detr.errors import InputError, UsageError, did_you_mean
from detr.layers.timm import timm_package, with_frozen_norms

_ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}  # what transformers of timm call it


class TimmConfig(Config):
    kind: Literal["timm"] = "timm"
    name: str = Field(min_length=1)  # as timm.create_model knows it, such as convnext_tiny.in12k_ft_in1k
    strides: tuple[int, ...] = (8, 16, 32)  # of the levels given out, fine to coarse
    pretrained: bool = False  # a training without --weights starts from timm's weights, which timm downloads
    frozen_norms: bool = False  # every batch norm is a fixed scale and shift
    options: dict[str, bool | int | float | str | tuple[int, ...]] = Field(default_factory=dict)  # of the model itself

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the levels given out."""
        maps = _maps_of(self.name)
        return tuple(maps.channels[index] for index in _chosen(self, maps))


class TimmBackbone(nn.Module):
    """Images [B, C, h, w] -> maps of `config.strides` with `config.channels` channels.

    A network whose maps all have one stride (a plain vision transformer) gives as many of them as levels are asked
    for, evenly over its depth, each resized to its level.
    """

    def __init__(self, config: TimmConfig, image_channels: int = 3) -> None:
        super().__init__()
        self.config, self.image_channels = config, image_channels
        maps = _maps_of(config.name)
        self.body = _extractor(config, maps, image_channels)
        if config.frozen_norms:
            self.body = with_frozen_norms(self.body)
        self.channels_last_out = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self.resized = maps.one_stride

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = list(self.body(images))
        if self.channels_last_out:
            maps = [each.permute(0, 3, 1, 2) for each in maps]
        if self.resized:
            sizes = [[-(-side // stride) for side in images.shape[-2:]] for stride in self.config.strides]
            maps = [_resized(each, size) for each, size in zip(maps, sizes, strict=True)]
        return tuple(maps)

    def load_pretrained(self) -> str:
        """Take timm's own weights, and say which. InputError where they can't be had."""
        config = self.config
        if os.environ.get("DETR_OFFLINE", "0") not in ("", "0"):
            raise InputError(f"backbone.pretrained needs timm to download {config.name}, and DETR_OFFLINE is set")
        try:
            source = _extractor(config, _maps_of(config.name), self.image_channels, pretrained=True)
        except (OSError, RuntimeError) as problem:  # no network, or a name without weights
            raise InputError(f"no weights of timm's {config.name}: {' '.join(str(problem).split())}") from None
        ours = self.body.state_dict()
        self.body.load_state_dict({name: value for name, value in source.state_dict().items() if name in ours})
        return f"timm's {config.name}"

    @property
    def stem(self) -> nn.Module:
        raise UsageError(self._undivided())

    @property
    def stages(self) -> nn.ModuleList:
        raise UsageError(self._undivided())

    def _undivided(self) -> str:
        return (
            f"the parts of timm's {self.config.name} can't be told apart: expected train.freeze to be nothing, "
            "backbone or 'all but heads', and no train.optimizer.layer_decay"
        )


@dataclass(frozen=True)
class _Maps:
    """What a network of timm can give out."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    settings: tuple[str, ...]  # those of `_ANY_SIZE` that its constructor knows

    @property
    def one_stride(self) -> bool:
        return len(set(self.strides)) == 1 and len(self.strides) > 1


@functools.lru_cache(maxsize=64)
def _maps_of(name: str) -> _Maps:
    """UsageError for a name that timm doesn't know, or of a network that gives no maps."""
    timm = timm_package()
    if not timm.is_model(name):
        nearest = did_you_mean(name, timm.list_models()) or "; timm.list_models() shows them"
        raise UsageError(f"timm knows no model {name!r}{nearest}")
    with torch.device("meta"):  # shapes only
        whole = timm.create_model(name)
        try:
            features = timm.create_model(name, features_only=True, out_indices=_every(whole))
        except (AttributeError, RuntimeError, TypeError, ValueError, AssertionError) as problem:
            raise UsageError(f"timm's {name} gives no feature maps: {' '.join(str(problem).split())}") from None
    info = features.feature_info
    known = inspect.signature(type(whole).__init__).parameters
    return _Maps(
        tuple(info.channels()), tuple(info.reduction()), tuple(setting for setting in _ANY_SIZE if setting in known)
    )


def _every(whole: nn.Module) -> tuple[int, ...] | None:
    """Indices of all maps of a network that lists them (transformers give the last three unless asked)."""
    listed: Any = getattr(whole, "feature_info", None)
    return tuple(range(len(listed))) if isinstance(listed, list) and listed else None


def _chosen(config: TimmConfig, maps: _Maps) -> tuple[int, ...]:
    """Index of the map for each level; UsageError for a stride that the network has not."""
    wanted = config.strides
    if not wanted or list(wanted) != sorted(set(wanted)) or wanted[0] < 1:
        raise UsageError(f"backbone.strides {list(wanted)}: expected strides from fine to coarse, such as [8, 16, 32]")
    if maps.one_stride:
        count = len(maps.strides)
        if 32 % maps.strides[0]:
            raise UsageError(f"timm's {config.name} has patches of {maps.strides[0]} pixels; expected a divisor of 32")
        if len(wanted) > count:
            raise UsageError(f"backbone.strides: timm's {config.name} has {count} maps, not {len(wanted)}")
        return tuple(round(count * (level + 1) / len(wanted)) - 1 for level in range(len(wanted)))
    last = {stride: index for index, stride in enumerate(maps.strides)}
    missing = [stride for stride in wanted if stride not in last]
    if missing:
        given = ", ".join(map(str, last))
        raise UsageError(f"backbone.strides: timm's {config.name} gives maps of strides {given}, not {missing[0]}")
    return tuple(last[stride] for stride in wanted)


def _extractor(config: TimmConfig, maps: _Maps, image_channels: int, *, pretrained: bool = False) -> nn.Module:
    settings = {name: _ANY_SIZE[name] for name in maps.settings} | config.options
    if image_channels != 3:  # pretrained weights are made to fit
        settings["in_chans"] = image_channels
    try:
        return timm_package().create_model(
            config.name, features_only=True, out_indices=_chosen(config, maps), pretrained=pretrained, **settings
        )
    except TypeError as problem:
        raise UsageError(f"backbone.options: timm's {config.name} refuses them: {problem}") from None


def _resized(x: Tensor, size: list[int]) -> Tensor:
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
