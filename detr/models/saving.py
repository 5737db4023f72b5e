"""A network -> a file: ours, as the official code loads it, or as a folder that Hugging Face's transformers loads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from detr import convert, hugging_face, weights
from detr.convert.rtdetr_hf import POINTS_SCALE
from detr.errors import InputError, UsageError, did_you_mean
from detr.files import write_text, written_aside
from detr.layers.position import anchors
from detr.models.presets import Network

Form = Literal["detr", "official", "hf"]

_STRIDES = (8, 16, 32)


def save_model(
    network: Network, path: str | os.PathLike[str], form: Form = "detr", *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write `network` to `path`: a file, or for "hf" a folder with config.json beside the weights.

    The other two forms have no room for `metadata`. InputError where a form can't hold the model or the file can't be
    written; UsageError for an unknown form.
    """
    path = Path(path)
    if form == "detr":
        model = network.config.model_dump(mode="json")
        weights.write(path, network.state_dict(), model=model, classes=network.classes, metadata=metadata)
    elif form == "official":
        _save_official(network, path)
    elif form == "hf":
        _save_hugging_face(network, path)
    else:
        nearest = did_you_mean(form, get_args(Form)) or f"; known are {', '.join(get_args(Form))}"
        raise UsageError(f"no form {form!r}{nearest}")


def official_state(network: Network) -> dict[str, Tensor]:
    """Under the official names, with the buffers that version 2 keeps there and we compute."""
    config = network.config
    if config.version == 1:
        return convert.to_theirs(network.state_dict(), "rtdetr-official")
    state = convert.to_theirs(network.state_dict(), "rtdetrv2-official")
    shapes = tuple((config.input.height // stride, config.input.width // stride) for stride in _STRIDES)
    places, valid = anchors(shapes, like=torch.empty(0))
    valid = torch.ones(len(places), 1, dtype=torch.bool) if valid is None else valid
    state |= {"decoder.anchors": places[None], "decoder.valid_mask": valid[None]}
    name = "decoder.decoder.layers.{layer}.cross_attn.num_points_scale"
    return state | _points_scales(config, name)


def hugging_face_state(network: Network) -> dict[str, Tensor]:
    """Under the names of transformers' files."""
    config = network.config
    if config.version == 1:
        return convert.to_theirs(network.state_dict(), "rt_detr-hf")
    state = convert.to_theirs(network.state_dict(), "rt_detr_v2-hf")
    return state | _points_scales(config, POINTS_SCALE)


def _points_scales(config: Any, name: str) -> dict[str, Tensor]:
    scale = torch.tensor([1 / count for count in config.decoder.points for _ in range(count)])
    return {name.format(layer=layer): scale.clone() for layer in range(config.decoder.num_layers)}


def _save_official(network: Network, path: Path) -> None:
    try:
        with written_aside(path) as aside, aside.open("wb") as file:
            torch.save({"model": official_state(network)}, file)
    except (OSError, RuntimeError) as problem:
        raise InputError(f"cannot write {path}: {' '.join(str(problem).split())}") from None


def _save_hugging_face(network: Network, folder: Path) -> None:
    config = network.config
    model = config.model_dump(mode="json")
    about = hugging_face.config_of(model, network.classes)
    processor = hugging_face.processor_of(model["input"])
    if folder.is_file():
        raise UsageError(f"{folder} is a file; Hugging Face's form is a folder")
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in hugging_face_state(network).items()}
    try:
        with written_aside(folder / "model.safetensors") as aside:
            save_file(tensors, aside, metadata={"format": "pt"})
    except (SafetensorError, OSError) as problem:
        raise InputError(f"cannot write {folder}: {' '.join(str(problem).split())}") from None
    write_text(folder / "config.json", json.dumps(about, indent=2) + "\n")
    write_text(folder / "preprocessor_config.json", json.dumps(processor, indent=2) + "\n")
