"""What Hugging Face's transformers writes beside the weights, and what it needs there."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from detr.classes import Classes
from detr.errors import InputError
from detr.hugging_face import deformable_detr, deimv2, detr, dfine, processor, rtdetr
from detr.hugging_face.processor import classes_of, input_of, labels_of

__all__ = ["classes_of", "config_of", "input_of", "labels_of", "model_of", "processor_of"]

_ARCHS: dict[str, ModuleType] = {
    "deformable_detr": deformable_detr,
    "deimv2": deimv2,
    "detr": detr,
    "dfine": dfine,
    "rtdetr": rtdetr,
}


def model_of(config: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """The model section of a recipe that a config.json amounts to; None for a model we don't have.

    InputError names the first setting that our models don't vary.
    """
    for module in _ARCHS.values():
        if config.get("model_type") in module.TYPES:
            return module.model_of(config, source)
    return None


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    if model["arch"] not in _ARCHS:
        raise InputError(f"transformers has no model like {model['arch']}; known are {', '.join(_ARCHS)}")
    return _ARCHS[model["arch"]].config_of(model, classes)


def processor_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessor_config.json of a model section with every setting in it."""
    return processor.processor_of(model["input"], _ARCHS[model["arch"]].PROCESSOR)


def note_on(arch: str) -> str | None:
    """What those who write a model for transformers should know, if anything."""
    return getattr(_ARCHS[arch], "NOTE", None) if arch in _ARCHS else None
