"""The detectors. `build_model` makes one with fresh weights, `load_model` one from a file or a release."""

from __future__ import annotations

import sys
from types import ModuleType

from torch import nn

from detr.classes import COCO, Classes
from detr.models.presets import models, preset
from detr.models.rtdetr import RTDETRConfig, RTDETRNetwork

MODELS: dict[str, tuple[type[RTDETRConfig], type[RTDETRNetwork]]] = {"rtdetr": (RTDETRConfig, RTDETRNetwork)}
"""Every architecture: its settings and its network."""

ModelConfig = RTDETRConfig  # a union told apart by `arch` once there is a second architecture


def build_model(model: str | ModelConfig, *, classes: Classes | None = None) -> nn.Module:
    """A network with fresh weights, in training mode; for COCO's 80 classes unless told."""
    config = preset(model) if isinstance(model, str) else model
    return MODELS[config.arch][1](config, COCO if classes is None else classes)


class _Callable(ModuleType):
    """`detr.models()` lists the names, whether or not this package has been imported: the two share a name."""

    def __call__(self) -> list[str]:
        return models()


sys.modules[__name__].__class__ = _Callable
