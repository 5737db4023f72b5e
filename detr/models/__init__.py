"""The detectors. `build_model` makes one with fresh weights, `load_model` one from a file or a release."""

from __future__ import annotations

import sys
from types import ModuleType

from detr.models.loading import load_model, network_of
from detr.models.presets import MODELS, ModelConfig, Network, build_model, model_config, models, preset

__all__ = [
    "MODELS",
    "ModelConfig",
    "Network",
    "build_model",
    "load_model",
    "model_config",
    "models",
    "network_of",
    "preset",
]


class _Callable(ModuleType):
    """`detr.models()` lists the names, whether or not this package has been imported: the two share a name."""

    def __call__(self) -> list[str]:
        return models()


sys.modules[__name__].__class__ = _Callable
