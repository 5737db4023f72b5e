"""Models by name, and a network with fresh weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from detr.classes import COCO, Classes
from detr.config import read_recipe, recipe_names, validated
from detr.errors import UsageError, did_you_mean
from detr.models.deformable_detr import DeformableDETRConfig, DeformableDETRNetwork
from detr.models.deimv2 import DEIMv2Config, DEIMv2Network
from detr.models.detr import DETRConfig, DETRNetwork
from detr.models.dfine import DFINEConfig, DFINENetwork
from detr.models.dino import DINOConfig, DINONetwork
from detr.models.network import DetectionNetwork
from detr.models.rtdetr import RTDETRConfig, RTDETRNetwork

MODELS: dict[str, tuple[type[Any], type[DetectionNetwork]]] = {
    "deformable_detr": (DeformableDETRConfig, DeformableDETRNetwork),
    "deimv2": (DEIMv2Config, DEIMv2Network),
    "detr": (DETRConfig, DETRNetwork),
    "dfine": (DFINEConfig, DFINENetwork),
    "dino": (DINOConfig, DINONetwork),
    "rtdetr": (RTDETRConfig, RTDETRNetwork),
}
"""Every architecture: its settings and its network."""

Network = DetectionNetwork


def _arch(given: Any) -> str:
    """Files older than the second architecture may not say theirs."""
    return given.get("arch", "rtdetr") if isinstance(given, dict) else getattr(given, "arch", "rtdetr")


ModelConfig = Annotated[
    Annotated[DeformableDETRConfig, Tag("deformable_detr")]
    | Annotated[DEIMv2Config, Tag("deimv2")]
    | Annotated[DETRConfig, Tag("detr")]
    | Annotated[DFINEConfig, Tag("dfine")]
    | Annotated[DINOConfig, Tag("dino")]
    | Annotated[RTDETRConfig, Tag("rtdetr")],
    Discriminator(_arch),
]
"""The settings of any model, told apart by `arch`."""


def models() -> list[str]:
    """The names that `build_model` and `load_model` know."""
    return recipe_names()


@lru_cache(maxsize=256)
def preset(name: str) -> Any:
    """The `model` section of the recipe of that name; UsageError where there is none."""
    if name not in models():
        is_file = os.sep in name or "." in name
        nearest = "; a file is given with --weights" if is_file else did_you_mean(name, models())
        nearest = nearest or f"; known are {', '.join(models())}"
        raise UsageError(f"no model is called {name!r}{nearest}")
    return model_config(read_recipe(name).get("model", {}), f"recipe {name}, model")


def model_config(tree: Mapping[str, Any], source: str) -> Any:
    """A model section as the settings of its architecture; UsageError for whatever is not right in it."""
    arch = _arch(dict(tree))
    if arch not in MODELS:
        nearest = did_you_mean(arch, MODELS) or f"; known are {', '.join(MODELS)}"
        raise UsageError(f"{source}: arch is {arch!r}{nearest}")
    return validated(MODELS[arch][0], tree, source)


def build_model(model: str | Any, *, classes: Classes | None = None) -> Network:
    """A network with fresh weights, in training mode; for COCO's 80 classes unless told.

    `model` is a preset's name or a `ModelConfig`.
    """
    config = preset(model) if isinstance(model, str) else model
    return MODELS[config.arch][1](config, COCO if classes is None else classes)
