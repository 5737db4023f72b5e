"""The backbones: images [B, 3, h, w] -> maps of several levels, fine to coarse."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag
from torch import nn

from detr.backbones.resnet import ResNet, ResNetConfig

BACKBONES: dict[str, tuple[type[Any], type[nn.Module]]] = {"resnet": (ResNetConfig, ResNet)}
"""Every kind: its settings and its network."""


def _kind(given: Any) -> str:
    """Files older than the second kind don't say theirs."""
    return given.get("kind", "resnet") if isinstance(given, dict) else getattr(given, "kind", "resnet")


BackboneConfig = Annotated[Annotated[ResNetConfig, Tag("resnet")], Discriminator(_kind)]


def build_backbone(config: Any) -> nn.Module:
    """The network of a `BackboneConfig`, with `stem` and `stages`."""
    return BACKBONES[config.kind][1](config)
