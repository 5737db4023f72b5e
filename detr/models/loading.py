"""Weights of any source we know -> a network, strictly: every tensor finds its place or the file is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from detr import convert, weights
from detr.classes import COCO, Classes
from detr.config import validated
from detr.errors import InputError
from detr.models.presets import ModelConfig, Network, build_model, preset
from detr.models.structure import Structure, presets_like, seen_in

_VERSIONS = {"rtdetr-official": 1, "rtdetrv2-official": 2, "rt_detr-hf": 1, "rt_detr_v2-hf": 2}
_HEAD = "queries.score_head.weight"


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


def network_of(
    checkpoint: weights.Checkpoint, model: str | None = None, *, otherwise: ModelConfig | None = None
) -> Network:
    """The network of a file that has been read, on the CPU.

    `otherwise` is what a file that doesn't say its model is taken for.
    """
    wanted = None if model is None else preset(model)
    source = convert.identify(checkpoint.state)
    if source == convert.BACKBONE:
        raise InputError(f"{checkpoint.path} holds only a ResNet-vd backbone; use it for training with --weights")
    state = dict(checkpoint.state) if source is None else convert.to_ours(checkpoint.state, source)
    structure = seen_in(state)
    if structure is None:
        raise InputError(f"{checkpoint.path} holds {_what(checkpoint.state)}, no RT-DETR")
    if wanted is not None:
        config = wanted
    elif checkpoint.model is not None:
        config = validated(ModelConfig, checkpoint.model, f"{checkpoint.path}, model")
    elif otherwise is not None:
        config = otherwise
    else:
        config = _config_like(structure, None if source is None else _VERSIONS[source], checkpoint)
    network = build_model(config, classes=_classes(checkpoint, state))
    _require_fit(network, state, checkpoint, structure, model)
    network.load_state_dict(state)
    return network


def _config_like(structure: Structure, version: int | None, checkpoint: weights.Checkpoint) -> ModelConfig:
    names = presets_like(structure, version)
    versions = {preset(name).version for name in names}
    if not names:
        raise InputError(f"{checkpoint.path} is like no model of ours ({structure}); say which with model=")
    if len(versions) > 1:
        raise InputError(f"{checkpoint.path} doesn't say which of {', '.join(names)} it is; say it with model=")
    return preset(names[0])


def _classes(checkpoint: weights.Checkpoint, state: Mapping[str, Tensor]) -> Classes:
    """The file's own class table; without one, COCO's names for 80 classes, else class_0, class_1, ..."""
    count = len(state[_HEAD]) if _HEAD in state else len(COCO)
    if checkpoint.classes is not None:
        if len(checkpoint.classes) != count:
            raise InputError(
                f"{checkpoint.path}: its table names {len(checkpoint.classes)} classes, its head has {count}"
            )
        return checkpoint.classes
    return COCO if count == len(COCO) else Classes.from_names(f"class_{index}" for index in range(count))


def _require_fit(
    network: nn.Module,
    state: Mapping[str, Tensor],
    checkpoint: weights.Checkpoint,
    structure: Structure,
    model: str | None,
) -> None:
    ours = network.state_dict()
    optional = {name for name in ours if name.endswith("num_batches_tracked")}
    missing = [name for name in ours if name not in state and name not in optional]
    extra = [name for name in state if name not in ours and not name.endswith("num_batches_tracked")]
    others = [name for name in ours if name in state and ours[name].shape != state[name].shape]
    if not (missing or extra or others):
        return
    like = presets_like(structure, None)
    if model is not None and like and model not in like:
        raise InputError(f"{checkpoint.path} holds {' or '.join(like)}, not {model}")
    counts = [
        f"{len(names)} tensors {what}"
        for names, what in ((missing, "missing"), (extra, "too many"), (others, "of another shape"))
        if names
    ]
    first = [_named(name, ours, state) for name in (*others, *missing, *extra)[:3]]
    raise InputError(f"{checkpoint.path} doesn't fit {model or 'its model'}: {', '.join(counts)}: {'; '.join(first)}")


def _named(name: str, ours: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if name in ours and name in state:
        return f"{name} is {_shape(state[name].shape)}, expected {_shape(ours[name].shape)}"
    return f"{name} is {'missing' if name in ours else 'unknown'}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _what(state: Mapping[str, Tensor]) -> str:
    other = convert.other_model(state)
    if other is not None:
        return other
    names = ", ".join(list(state)[:3])
    return f"{len(state)} tensors of a model we don't know ({names}, ...)" if names else "no tensors"
