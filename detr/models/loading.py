"""Weights of any source we know -> a network, strictly: every tensor finds its place or the file is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from detr import convert, weights
from detr.classes import COCO, Classes
from detr.errors import InputError
from detr.models.derived import with_settings
from detr.models.likeness import differences, nearest_preset, presets_like, shapes_of
from detr.models.network import Slots, num_slots
from detr.models.presets import Network, build_model, model_config, models, preset
from detr.models.undrawn import Undrawn


def load_model(name_or_path: str, model: str | None = None, *, device: torch.device | str = "cpu") -> Network:
    """A network from a release's name or a file of ours, the authors' or Hugging Face's, in evaluation mode.

    `model` is needed only where the file doesn't say which preset it is for. UsageError for an unknown name,
    InputError for a file that can't be read or holds something else: the message says what it holds.
    """
    return read_network(name_or_path, model)[1].to(device).eval()


def read_network(name_or_path: str, model: str | None = None) -> tuple[weights.Checkpoint, Network]:
    """The file behind a release or path as it is, and the network it makes."""
    checkpoint = weights.read(weights.resolve(name_or_path))
    return checkpoint, network_of(checkpoint, model or said_by_release(name_or_path, checkpoint))


def said_by_release(name_or_path: str, checkpoint: weights.Checkpoint) -> str | None:
    """The preset of a release whose file doesn't say what it is."""
    release = weights.RELEASES.get(name_or_path)
    return release.model if release and checkpoint.model is None else None


def network_of(checkpoint: weights.Checkpoint, model: str | None = None, *, otherwise: Any | None = None) -> Network:
    """The network of a file that has been read, on the CPU.

    `otherwise` is what a file that doesn't say its model is taken for.
    """
    source = convert.identify(checkpoint.state)
    if source in convert.BACKBONES:
        raise InputError(f"{checkpoint.path} holds only a backbone; use it for training with --weights")
    state = dict(checkpoint.state) if source is None else convert.to_ours(checkpoint.state, source)
    fields = {} if source is None else _told_by(source)
    name = model or "its model"
    if model is not None:
        config = _as_deep(preset(model), state)
    elif checkpoint.model is not None:
        config = model_config(checkpoint.model, f"{checkpoint.path}, model")
    elif otherwise is not None:
        config = otherwise
    else:
        config, name = _preset_like(state, fields, checkpoint)
    if source is not None:
        config = with_settings(config, checkpoint.state, convert.TABLES[source])
    config, classes = _with_classes(config, state, fields, checkpoint)
    with Undrawn():
        network = build_model(config, classes=classes)
    if shapes_of(config).is_cut(state):
        network.cut()
    _require_fit(network, state, fields, checkpoint, name)
    network.load_state_dict(state)
    return network


def _told_by(source: str) -> dict[str, Any]:
    """The fields of the model section that the names of a source tell."""
    table = convert.TABLES[source]
    return {"arch": table.arch, **dict(table.fields)}


def _preset_like(
    state: Mapping[str, Tensor], fields: Mapping[str, Any], checkpoint: weights.Checkpoint
) -> tuple[Any, str]:
    """The preset of just these tensors, or the nearest, and what to call it."""
    # Every network of ours has a backbone: without one, nothing has to be built to see that it is none of them.
    has_backbone = any(name.startswith("backbone.") for name in state)
    if not fields and (not has_backbone or convert.other_model(checkpoint.state) is not None):
        raise InputError(f"{checkpoint.path} holds {_what(checkpoint.state)}, none of our models")
    names = presets_like(state, **fields)
    if not names:
        nearest = nearest_preset(state, **fields)
        if nearest is None or state.keys().isdisjoint(shapes_of(preset(nearest)).of):
            raise InputError(f"{checkpoint.path} holds {_what(checkpoint.state)}, none of our models")
        return _as_deep(preset(nearest), state), f"{nearest}, the nearest of our models"
    if len(names) > 1:
        published = {each.file_name: each.model for each in weights.RELEASES.values()}
        said = published.get(checkpoint.path.name)
        if said is None or said not in names:
            raise InputError(f"{checkpoint.path} doesn't say which of {', '.join(names)} it is; say it with model=")
        names = [said]
    return preset(names[0]), names[0]


def _as_deep(config: Any, state: Mapping[str, Tensor]) -> Any:
    """The settings with as many layers as a state dict has, where that is all that it differs in from every preset."""
    if not shapes_of(config).unlike(state) or presets_like(state, arch=config.arch):
        return config
    deep = {}
    for name, part in (("encoder", config.encoder), ("decoder", config.decoder)):
        numbers = {each.split(".")[2] for each in state if each.startswith(f"{name}.layers.")}
        if numbers:
            all_run = {"eval_layers": None} if name == "decoder" else {}
            deep[name] = part.model_copy(update={"num_layers": len(numbers), **all_run})
    found = config.model_copy(update=deep)
    return config if shapes_of(found).unlike(state) else found


def _with_classes(
    config: Any, state: Mapping[str, Tensor], fields: Mapping[str, Any], checkpoint: weights.Checkpoint
) -> tuple[Any, Classes]:
    """The file's own class table; without one, COCO's names where their number fits, else class_0, class_1, ...

    Heads are numbered by index where their rows can't be the ids of the classes.
    """
    count = shapes_of(config).slots_in(state)
    if count is None:
        return config, checkpoint.classes or COCO
    classes = checkpoint.classes or COCO
    ways: tuple[Slots, ...] = (config.slots, fields.get("slots", "index"), "index")
    for way in ways:
        if num_slots(classes, way) == count:
            return config.model_copy(update={"slots": way}), classes
    if checkpoint.classes is not None:
        raise InputError(f"{checkpoint.path}: its table names {len(classes)} classes, its head has {count}")
    names = Classes.from_names(f"class_{index}" for index in range(count))
    return config.model_copy(update={"slots": "index"}), names


def _require_fit(
    network: Network, state: Mapping[str, Tensor], fields: Mapping[str, Any], checkpoint: weights.Checkpoint, name: str
) -> None:
    ours = network.state_dict()
    said = differences(ours, state)
    if said is None:
        return
    if state.keys().isdisjoint(ours):
        raise InputError(f"{checkpoint.path} holds {_what(checkpoint.state)}, no {network.config.arch}")
    like = presets_like(state, **fields) if name in models() else []
    if like:
        raise InputError(f"{checkpoint.path} holds {' or '.join(like)}, not {name}")
    raise InputError(f"{checkpoint.path} doesn't fit {name}: {said}")


def _what(state: Mapping[str, Tensor]) -> str:
    other = convert.other_model(state)
    if other is not None:
        return other
    names = ", ".join(list(state)[:3])
    return f"{len(state)} tensors of a model we don't know ({names}, ...)" if names else "no tensors"
