"""Weights in files: read anybody's without running anything, write ours.

Ours is safetensors whose header holds one key, `detr`: JSON with the model section of the recipe, the class table,
free metadata, the SHA-256 of each tensor, and a seal over all of that. Safetensors and torch both load a flipped byte
silently; `read` does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detr import hugging_face
from detr.classes import Classes
from detr.errors import InputError, UsageError
from detr.files import read_json, written_aside
from detr.releases import RELEASES, Release, resolve
from detr.torch_file import read_torch_file

__all__ = ["RELEASES", "Checkpoint", "Release", "read", "resolve", "write"]

FORMAT = 1
_EXPORTED = (".onnx", ".xml", ".pt2", ".engine")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file of weights holds and says about itself."""

    path: Path
    state: dict[str, Tensor]  # under the names of whoever wrote it, on the CPU
    model: dict[str, Any] | None  # the model section of a recipe, as a plain tree
    classes: Classes | None
    metadata: dict[str, Any] = field(default_factory=dict)  # anything else the file says
    format: str = "safetensors"  # "detr", "safetensors", "huggingface" or "torch"


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read `.safetensors` (ours or anybody's), `.pth`/`.pt`/`.bin`, or a folder as Hugging Face lays it out.

    What the file is, is told from its content, not from its name. UsageError where there is nothing at `path`, or an
    exported file; InputError, in one line, for whatever can't be read, is damaged, claims more than it holds, or would
    run code.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UsageError(f"no such weights file: {path}")
    require_weights(path)
    with path.open("rb") as file:
        start = file.read(512)
    if _begins_like_safetensors(start):  # asked first: the length of a header may spell PK
        return _read_safetensors(path)
    if start.startswith(b"PK"):
        state, metadata = read_torch_file(path)
        return Checkpoint(path, state, None, None, metadata, "torch")
    raise InputError(f"{path} is no file of weights: {_what_it_is(start)}; expected .safetensors or .pth")


def require_weights(name: str | os.PathLike[str]) -> None:
    """UsageError for an exported file, as its name ends: what is in there can be run, and no more."""
    if Path(name).suffix.lower() in _EXPORTED:
        raise UsageError(
            f"{name} is an exported file, to be run, not trained or changed; give the weights that it was made of, "
            "such as best.safetensors of a training, or a release"
        )


def write(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    *,
    model: Mapping[str, Any],
    classes: Classes,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write ours. The same content gives the same bytes; a failed write leaves the old file as it was.

    InputError where the file can't be written (the folder is read-only, the disk is full).
    """
    path = Path(path)
    # A copy each, because safetensors refuses tensors that share memory.
    tensors = {name: _plain_copy(tensor) for name, tensor in state.items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "model": dict(model),
        "classes": classes.to_json(),
        "metadata": dict(metadata or {}),
        "sha256": {name: _digest(tensor) for name, tensor in sorted(tensors.items())},
    }
    about["seal"] = _seal(about)
    try:
        with written_aside(path) as aside, _errors_of_the_system():
            save_file(tensors, aside, metadata={"detr": _as_json(about)})
    except (SafetensorError, OSError) as problem:
        raise InputError(f"cannot write {path}: {_reason(problem)}; what was there before is untouched") from None


def _read_safetensors(path: Path) -> Checkpoint:
    state, header = _tensors(path)
    if _is_ours(header):
        about = _verified(path, state, header.get("detr", ""))
        classes = Classes.from_json(about["classes"])
        return Checkpoint(path, state, about["model"], classes, about["metadata"], "detr")
    config = path.with_name("config.json")
    if path.name == _SINGLE and config.is_file():
        return _with_config(path, state, config)
    return Checkpoint(path, state, None, None, dict(header), "safetensors")


def _read_folder(folder: Path) -> Checkpoint:
    """A Hugging Face folder: config.json with model.safetensors, or with an index of shards."""
    index, config = folder / _INDEX, folder / "config.json"
    if (folder / _SINGLE).is_file():
        state, header = _tensors(folder / _SINGLE)
        if _is_ours(header):
            return _read_safetensors(folder / _SINGLE)
    elif index.is_file():
        state = _shards(index)
    else:
        near = next(iter(sorted(folder.glob("best.safetensors")) + sorted(folder.glob("*.safetensors"))), None)
        nearest = f"give the weights file itself{'' if near is None else f', such as {near}'}"
        raise UsageError(f"{folder} is a folder without {_SINGLE} or {_INDEX}; {nearest}")
    if not config.is_file():
        return Checkpoint(folder, state, None, None, {}, "safetensors")
    return _with_config(folder, state, config)


def _shards(index: Path) -> dict[str, Tensor]:
    places = _json_file(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise InputError(f"{index}: no weight_map from tensor names to files")
    state: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise InputError(f"{index}: shard {file!r} lies outside its folder")
        shard = index.with_name(file)
        if not shard.is_file():
            raise InputError(f"{index}: shard {file} is missing")
        state.update(_tensors(shard)[0])
    if missing := sorted(set(places) - set(state)):
        raise InputError(f"{index}: its shards lack {len(missing)} tensors, the first is {missing[0]}")
    return state


def _with_config(path: Path, state: dict[str, Tensor], config: Path) -> Checkpoint:
    tree = _json_file(config)
    model, classes = hugging_face.model_of(tree, str(config)), hugging_face.classes_of(tree, str(config))
    processor = config.with_name("preprocessor_config.json")
    if model is not None and processor.is_file():
        model["input"] = hugging_face.input_of(_json_file(processor), str(processor))
    return Checkpoint(path, state, model, classes, {"config": tree}, "huggingface")


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, copied out of the mapped file, and the strings of its header."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as problem:
        raise InputError(f"{path} is damaged or cut short: {_reason(problem)}") from None


def _is_ours(header: Mapping[str, str]) -> bool:
    """The seal is looked for as well as the key, because the key itself can be damaged."""
    return "detr" in header or any('"seal":"' in text for text in header.values())


def _verified(path: Path, state: Mapping[str, Tensor], text: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
        if not isinstance(about, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise InputError(f"{path}: checkpoint damaged (its description is not readable)") from None
    if about.get("format") != FORMAT:
        raise InputError(f"{path}: written in format {about.get('format')!r}; this version reads format {FORMAT}")
    seal = about.pop("seal", None)
    if seal != _seal(about):
        raise InputError(f"{path}: checkpoint damaged (its description was changed)")
    digests = about["sha256"]
    for name in sorted({*digests, *state}):
        if name not in state or name not in digests or _digest(state[name]) != digests[name]:
            raise InputError(f"{path}: checkpoint damaged ({name})")
    return about


def _plain_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _digest(tensor: Tensor) -> str:
    """SHA-256 of type, shape and bytes: the header of a file can be damaged as well as its data."""
    sha = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _seal(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(_as_json(about).encode()).hexdigest()


def _as_json(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, separators=(",", ":"))


def _json_file(path: Path) -> dict[str, Any]:
    tree = read_json(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(tree).__name__}")
    return tree


def _begins_like_safetensors(start: bytes) -> bool:
    """Eight bytes of header length, then the header, which is JSON."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000


def _what_it_is(start: bytes) -> str:
    if not start:
        return "it is empty"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself (git lfs pull fetches it)"
    if start.startswith(b"\x80"):
        return "it is a bare pickle, as PyTorch wrote before version 1.6 (torch.save in a newer one makes it readable)"
    return f"it begins with {start[:12]!r}"


@contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """What safetensors says in words of its own, `I/O error: ... (os error 28)`, as the OSError that it was."""
    try:
        yield
    except SafetensorError as problem:
        if os.name != "posix" or not (found := re.search(r"\(os error (\d+)\)", str(problem))):
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from problem


def _reason(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return " ".join(str(problem).split())
