"""A file of `torch.export` looked through before PyTorch loads it, which would run what somebody put there.

Its loader unpickles what is pickled, loads compiled libraries, calls any function of `torch` that a node names, and
evaluates expressions as Python. What `torch.export` makes of a network needs none of that but a few plain words.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from detr.errors import InputError

_ENTRIES = re.compile(
    r"(data/(weights|constants|sample_inputs)|models|extra|\.data)/[^/]+|archive_\w+|byteorder|version"
)
_OPERATOR = re.compile(
    r"torch\.ops\.[a-z]\w*\.(__i?(and|or|xor|lshift|rshift)__|_?[A-Za-z]\w*)(\.[A-Za-z]\w*)?"
    r"|(_operator|math)\.[a-z]\w*|torch\._?sym_[a-z]\w*"
)
_SYMBOL = re.compile(r"'[a-z]+\d+'")
_UNSAFE = re.compile(r"__|['\"\\{};@:]|\.\s*[A-Za-z_]|\b[a-z_]\w*\s*\(")  # calls of what has no capital letter, too
_SIDE = re.compile(r"L(\['\w+'\]|\[\d+\])+\.size\(\)\[\d+\]")  # of an input: what conditions are about
_ARITHMETIC = re.compile(r"([\d\s()+\-*/%<>=!,]|\b(and|or|not|Max|Min|max|min)\b)*")
_PICKLED = ("custom_obj", "opaque_obj")


def require_harmless(path: Path) -> None:
    """InputError for a file that would run code; for a damaged one whatever its reader stumbles into."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        inner = [name.partition("/")[2] for name in names]  # without the folder around everything
        odd = next((name for name in inner if not _ENTRIES.fullmatch(name)), None)
        if odd is not None or len(set(inner)) < len(inner):
            _refuse(path, f"the entry {odd!r}" if odd is not None else "entries of the same name")
        for name, plain in zip(names, inner, strict=True):
            if plain.startswith(("data/", "models/")) and plain.endswith(".json"):
                _require_plain(path, json.loads(archive.read(name)))
            elif plain.endswith(".pt"):
                _require_tensors(path, plain, archive.read(name))


def _require_plain(path: Path, tree: Any) -> None:
    for key, value in _fields(tree):
        if key == "use_pickle" and value:
            _refuse(path, "pickled weights")
        if key == "path_name" and str(value).startswith(_PICKLED):
            _refuse(path, "pickled objects")
        if key in ("target", "as_operator") and isinstance(value, str) and not _OPERATOR.fullmatch(value):
            _refuse(path, f"a call of {value!r}")
        if key == "expr_str" and _UNSAFE.search(_SYMBOL.sub("", str(value))):
            _refuse(path, f"the expression {str(value)[:60]!r}")
        for guard in value if key == "guards_code" else ():
            if not _ARITHMETIC.fullmatch(_SIDE.sub("0", str(guard))):
                _refuse(path, f"the condition {str(guard)[:60]!r}")


def _require_tensors(path: Path, name: str, content: bytes) -> None:
    stream = BytesIO(content)
    try:
        torch.load(stream, weights_only=True)
    except Exception:  # what a damaged pickle raises can be anything
        _refuse(path, f"more than tensors in {name}")


def _fields(tree: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, at any depth."""
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            yield from here.items()
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def _refuse(path: Path, what: str) -> None:
    raise InputError(f"{path}: refused, it holds {what}, which may run code when loaded; export the weights again")
