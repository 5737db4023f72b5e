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
from detr.errors import InputError, UsageError, did_you_mean, listed
from detr.files import write_text, written_aside
from detr.models.derived import derived_state
from detr.models.presets import Network

Form = Literal["detr", "official", "hf"]


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
    """Under the official names, with the buffers that are kept there and follow from the settings."""
    return _state(network, "official")


def hugging_face_state(network: Network) -> dict[str, Tensor]:
    """Under the names of transformers' files."""
    return _state(network, "hf")


def _state(network: Network, form: Form) -> dict[str, Tensor]:
    source = convert.source_for(network.config, form)
    if source is None:
        needed = listed(convert.needed_for(network.config, form))
        only = f" but with {needed}" if needed else ""
        raise InputError(f"there is no form {form!r} of models of arch {network.config.arch!r}{only}")
    return convert.to_theirs(network.state_dict(), source) | derived_state(network.config, convert.TABLES[source])


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
    processor = hugging_face.processor_of(model)
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
