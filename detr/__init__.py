"""Object detection with transformers of the DETR family: train, evaluate, predict.

Importing this package costs nothing: each public name is loaded when it is first used.
"""

from importlib import import_module
from typing import Any

from detr.errors import did_you_mean

__version__ = "0.1.0"

_HOME_OF = {
    "Detector": "detr.engine.detector",
    "DETR": "detr.engine.families",
    "DeformableDETR": "detr.engine.families",
    "DINO": "detr.engine.families",
    "RTDETR": "detr.engine.families",
    "RTDETRv2": "detr.engine.families",
    "DFINE": "detr.engine.families",
    "DEIM": "detr.engine.families",
    "DEIMv2": "detr.engine.families",
    "Results": "detr.engine.results",
    "Boxes": "detr.engine.boxes",
    "models": "detr.models.presets",
    "build_model": "detr.models",
    "load_model": "detr.models",
    "criterion_for": "detr.criterion",
    "Target": "detr.records",
    "Batch": "detr.records",
    "Predictions": "detr.records",
    "Output": "detr.records",
    "Detections": "detr.records",
    "Classes": "detr.classes",
    "InputError": "detr.errors",
    "UsageError": "detr.errors",
}
__all__ = [*_HOME_OF, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'detr' has no attribute {name!r}{did_you_mean(name, _HOME_OF)}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
