"""What the files of others hold beside weights: tables that follow from the settings, and settings themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from detr.backbones.vit import SIZES, periods
from detr.convert.renaming import Table, filler
from detr.layers.position import anchors


def derived_state(config: Any, table: Table) -> dict[str, Tensor]:
    """Under their names, for a model of these settings, whose `decoder` says `points` and `num_layers`.

    Of `table.derived` those that the program writes; others, such as what it folds for inference, are left out.
    """
    settings = {_last(name): setting for name, setting in table.settings}
    state = {name: _setting(config, setting) for name, setting in table.settings}
    state |= {name: filler(kind, config.decoder.channels) for name, kind in table.fillers}
    for name in table.derived:
        if _last(name) in settings:
            state[name] = _setting(config, settings[_last(name)])
        elif _last(name) in ("anchors", "valid_mask"):
            places, valid = _anchors(config)
            state[name] = places if _last(name) == "anchors" else valid
        elif _last(name) in ("num_points_scale", "n_points_scale"):
            scale = torch.tensor([1 / count for count in config.decoder.points for _ in range(count)])
            state |= {name.format(layer=layer): scale.clone() for layer in range(config.decoder.num_layers)}
        elif _last(name) in ("periods", "mask_token", "bias_mask"):
            state |= _of_vit(config, name)
    return state


def with_settings(config: Any, state: Mapping[str, Tensor], table: Table) -> Any:
    """The settings as a file's entries have them: there they are read from, whatever is said beside the file."""
    for name, setting in table.settings:
        if name in state:
            section, field = setting.split(".")
            part = getattr(config, section).model_copy(update={field: float(state[name])})
            config = config.model_copy(update={section: part})
    return config


def _setting(config: Any, setting: str) -> Tensor:
    section, field = setting.split(".")
    return torch.tensor([float(getattr(getattr(config, section), field))])


def _of_vit(config: Any, name: str) -> dict[str, Tensor]:
    """What DINOv3's program keeps in its transformer."""
    size = SIZES[config.backbone.size]
    if _last(name) == "periods":
        return {name: periods(size.width // size.heads // 4)}
    if _last(name) == "mask_token":
        return {name: torch.zeros(1, size.width)}
    mask = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(size.width)
    return {name.format(layer=layer): mask.clone() for layer in range(size.num_layers)}


def _anchors(config: Any) -> tuple[Tensor, Tensor]:
    """[1, S, 4] logits and [1, S, 1] validity, for the input of the settings."""
    strides = list(config.backbone.strides)
    while len(strides) < len(config.decoder.points):
        strides.append(2 * strides[-1])
    shapes = tuple((config.input.height // stride, config.input.width // stride) for stride in strides)
    places, valid = anchors(shapes, like=torch.empty(0))
    valid = torch.ones(len(places), 1, dtype=torch.bool) if valid is None else valid
    return places[None], valid[None]


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
