"""Models by name: each is the `model` section of the recipe of that name."""

from __future__ import annotations

from detr.config import read_recipe, recipe_names, validated
from detr.errors import UsageError, did_you_mean
from detr.models.rtdetr import RTDETRConfig


def models() -> list[str]:
    """The names that `build_model` and `load_model` know."""
    return recipe_names()


def preset(name: str) -> RTDETRConfig:
    """The configuration of a named model; UsageError where there is none."""
    if name not in models():
        raise UsageError(f"no model is called {name!r}{did_you_mean(name, models())} Known: {', '.join(models())}")
    return validated(RTDETRConfig, read_recipe(name).get("model", {}), f"recipe {name}, model")
