"""A `.pth` of anybody's, read without running anything in it.

`torch.load(weights_only=True)` is used and nothing else, with a short list of harmless types that published files hold.
A file that needs more is refused, and the refusal names what it asks for.
"""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr.errors import InputError, listed

# Where the weights lie in published files, the averaged ones first: those are the ones whose AP is published.
NESTINGS = (("ema", "module"), ("ema",), ("model_ema",), ("model",), ("state_dict",), ("model_state_dict",), ())
PREFIXES = ("module.", "_orig_mod.")  # added by DistributedDataParallel and by torch.compile

_scalar = np.float64(0).__reduce__()[0]  # what numpy pickles its scalars by; its home changed with numpy 2
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")},
]
_MOST_CLAIMED = 1.1  # times the size of the file


def read_torch_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict, copied into memory of its own, and the plain facts that lie beside it, such as the epoch.

    `metadata["nesting"]` says where it was found. InputError when the file is damaged, compressed, claims more than
    it holds, holds no state dict, or holds objects that would run code.
    """
    _require_whole(path)
    content = _load(path)
    for nesting in NESTINGS:
        state = _at(content, nesting)
        if _is_state(state):
            state = _without_prefix(dict(state))
            _require_backed(path, state)
            facts = {"nesting": ".".join(nesting) or "the file itself"} | (_facts(content) if nesting else {})
            return {name: tensor.detach().clone() for name, tensor in state.items()}, facts
    raise InputError(f"{path}: no state dict in it; found {_described(content)}")


def _require_whole(path: Path) -> None:
    """torch.load checks no checksums, and would inflate what is compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _require_plain(path, entries)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, UnicodeError, RuntimeError, OSError) as problem:
        raise InputError(f"{path} is damaged or cut short: {' '.join(str(problem).split())}") from None
    if damaged:
        raise InputError(f"{path} is damaged (the checksum of {damaged} does not match)")


def _require_plain(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: compressed entries, which torch.save never writes; refused as a possible zip bomb")
    if sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise InputError(f"{path}: its entries claim more bytes than the file has; refused as a possible zip bomb")
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        names = ", ".join(entry.filename for entry in entries[:3])
        raise InputError(f"{path}: a zip archive, but not one of torch.save (it holds {names or 'nothing'})")


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as problem:  # what a damaged pickle raises can be anything; nothing goes on from here
        wanted = _refused_objects(path)
        if wanted:
            raise InputError(
                f"{path}: refused, it holds Python objects ({listed(wanted, 3)}) "
                "that would run code when loaded; expected tensors only (save model.state_dict() instead)"
            ) from None
        raise InputError(f"{path} is damaged or not a checkpoint: {_first_line(problem)}") from None


def _refused_objects(path: Path) -> list[str]:
    """Names of the types a pickle asks for and may not have; found by reading its opcodes, without running them."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # as above: a damaged file; the caller says so
        return []


def _at(content: Any, nesting: tuple[str, ...]) -> Any:
    for key in nesting:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _require_backed(path: Path, state: Mapping[str, Tensor]) -> None:
    """A tensor expanded from one number claims any size; copying it out would fill the memory."""
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{path}: {name} is not a plain tensor ({tensor.layout}, {tensor.device})")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    held = path.stat().st_size
    if claimed > _MOST_CLAIMED * held:
        raise InputError(f"{path}: its tensors claim {claimed:,} bytes, the file has {held:,}; refused")


def _facts(content: Mapping[Any, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool)
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, plain)}


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = [str(key) for key in content]
        return f"a mapping with {listed(keys) or 'nothing'}"
    return type(content).__name__


def _first_line(problem: Exception) -> str:
    lines = str(problem).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
    return lines[0][:200] if lines else type(problem).__name__
