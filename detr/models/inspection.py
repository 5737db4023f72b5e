"""What a file of weights is, told without trusting its name."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from detr import convert, releases, weights
from detr.errors import InputError
from detr.models.likeness import presets_like
from detr.models.loading import network_of, said_by_release
from detr.models.presets import Network, models, preset


def inspect(name_or_path: str, model: str | None = None) -> dict[str, Any]:
    """A report as plain values. `problem` says why where the file is no whole model of ours; `model` is None then,
    unless it is a backbone.

    Errors are those of reading; a file that can be read but not used is reported, not refused.
    """
    path = weights.resolve(name_or_path)
    checkpoint = weights.read(path)
    name: str | None = None
    problem: str | None = None
    parameters: int | None = None
    numbers: str | None = None
    classes = checkpoint.classes
    try:
        network = network_of(checkpoint, model or said_by_release(name_or_path, checkpoint))
    except InputError as reason:
        problem = str(reason)
        if convert.identify(checkpoint.state) in convert.BACKBONES:
            name = "a backbone only, to start a training from"
    else:
        name, classes, numbers = _described(network), network.classes, digest_of(network)
        parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "file": str(path),
        "bytes": sum(part.stat().st_size for part in (path.iterdir() if path.is_dir() else [path]) if part.is_file()),
        "format": checkpoint.format,
        "names": convert.identify(checkpoint.state),
        "model": name,
        "problem": problem,
        "classes": classes.rows() if classes else None,
        "parameters": parameters,
        "tensors": len(checkpoint.state),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.state.values()}),
        "metadata": {key: value for key, value in checkpoint.metadata.items() if key != "config"},
        "sha256": None if path.is_dir() else releases.file_sha256(path),
        "numbers": numbers,
        "checked": _checked(name_or_path, checkpoint),
    }


def digest_of(network: Network) -> str:
    """SHA-256 of all its numbers, under our names: the same whatever file, of whatever kind, they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def name_of(network: Network) -> str | None:
    """The preset that a network is, or one of the same tensors; None for a model of your own."""
    exact = preset_of(network)
    like = [exact] if exact else presets_like(network.state_dict(), arch=network.config.arch)
    return like[0] if like else None


def preset_of(network: Network) -> str | None:
    """The preset whose settings a network has, but for what differs from one data set or run to the other."""
    config = _plain(network.config)
    return next((name for name in models() if _plain(preset(name)) == config), None)


def _plain(config: Any) -> Any:
    return config.model_copy(update={"slots": "index", "num_queries": 0})


def _described(network: Network) -> str:
    return name_of(network) or f"{network.config.arch}, like no preset"


def _checked(name_or_path: str, checkpoint: weights.Checkpoint) -> str:
    if checkpoint.format == "detr":
        return "every tensor against its SHA-256"
    release = weights.RELEASES.get(name_or_path)
    if release:
        return f"against the {'published' if release.sha256 else 'recorded'} SHA-256"
    return "the archive's checksums only" if checkpoint.format == "torch" else "nothing to check against"
