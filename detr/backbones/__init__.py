"""The backbones: images [B, 3, h, w], or of other channels, -> maps of several levels, fine to coarse."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag
from torch import nn

from detr.backbones.hgnetv2 import HGNetv2, HGNetv2Config
from detr.backbones.resnet import ResNet, ResNetConfig
from detr.backbones.timm import TimmBackbone, TimmConfig
from detr.backbones.vit import ViT, ViTConfig

BACKBONES: dict[str, type[nn.Module]] = {"resnet": ResNet, "hgnetv2": HGNetv2, "timm": TimmBackbone, "vit": ViT}
"""Every kind of network."""


def _kind(given: Any) -> str:
    """Files older than the second kind don't say theirs."""
    return given.get("kind", "resnet") if isinstance(given, dict) else getattr(given, "kind", "resnet")


BackboneConfig = Annotated[
    Annotated[ResNetConfig, Tag("resnet")]
    | Annotated[HGNetv2Config, Tag("hgnetv2")]
    | Annotated[TimmConfig, Tag("timm")]
    | Annotated[ViTConfig, Tag("vit")],
    Discriminator(_kind),
]
"""The settings of any backbone, told apart by `kind`; all say `channels` and `strides` of the levels."""


def build_backbone(config: BackboneConfig, *, image_channels: int = 3) -> nn.Module:
    """The network of a `BackboneConfig`, for images of so many channels."""
    return BACKBONES[config.kind](config, image_channels)
