"""Models by name, and a network with fresh weights."""

from __future__ import annotations

from detr.classes import COCO, Classes
from detr.config import read_recipe, recipe_names, validated
from detr.errors import UsageError, did_you_mean
from detr.models.rtdetr import RTDETRConfig, RTDETRNetwork

MODELS: dict[str, tuple[type[RTDETRConfig], type[RTDETRNetwork]]] = {"rtdetr": (RTDETRConfig, RTDETRNetwork)}
"""Every architecture: its settings and its network."""

ModelConfig = RTDETRConfig  # a union told apart by `arch` once there is a second architecture
Network = RTDETRNetwork  # likewise


def models() -> list[str]:
    """The names that `build_model` and `load_model` know."""
    return recipe_names()


def preset(name: str) -> ModelConfig:
    """The `model` section of the recipe of that name; UsageError where there is none."""
    if name not in models():
        nearest = did_you_mean(name, models()) or f"; known are {', '.join(models())}"
        raise UsageError(f"no model is called {name!r}{nearest}")
    return validated(ModelConfig, read_recipe(name).get("model", {}), f"recipe {name}, model")


def build_model(model: str | ModelConfig, *, classes: Classes | None = None) -> Network:
    """A network with fresh weights, in training mode; for COCO's 80 classes unless told."""
    config = preset(model) if isinstance(model, str) else model
    return MODELS[config.arch][1](config, COCO if classes is None else classes)
