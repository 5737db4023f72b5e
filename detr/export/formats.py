"""The kinds of exported files: how they are called, what they need, and what can't be asked of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from detr.errors import UsageError, did_you_mean
from detr.export.packages import package
from detr.export.tensorrt_place import place_here

Backend = Literal["onnx", "openvino", "torch-export", "tensorrt"]

SUFFIXES: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2", "tensorrt": ".engine"}

PACKAGES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "torch-export": (),
    "tensorrt": ("onnx", "tensorrt"),
}
"""What a file is made and run with, besides PyTorch."""

_NOT_WRITTEN = {
    "torchscript": "PyTorch is giving it up; take its successor, torch-export",
    "aotinductor": "take torch-export; torch._inductor.aoti_compile_and_package compiles what torch.export.load reads",
}

_USUAL_NAMES = {"engine": "tensorrt", "trt": "tensorrt", "pt2": "torch-export"}

_NO_8_BITS = {
    "torch-export": "torch-export has no 8 bits here; take onnx or openvino",
    "tensorrt": "tensorrt has no 8 bits here: it takes scales without an offset only; take --half, or onnx or openvino",
}


def is_exported(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES.values()


def require_weights(name: str) -> None:
    """UsageError for an exported file where weights are wanted."""
    if is_exported(name):
        raise UsageError(f"{name} is an exported file; give the weights that it was made of")


def require_device(path: str | os.PathLike[str], device: str) -> None:
    """UsageError for an exported file on a device that it doesn't run on."""
    there = "cuda" if Path(path).suffix.lower() == SUFFIXES["tensorrt"] else "cpu"
    if device in ("auto", there):
        return
    how = "on the CPU here" if there == "cpu" else "on a GPU, chosen by CUDA_VISIBLE_DEVICES"
    raise UsageError(f"--device {device}: {path} is an exported file, which runs {how}; leave it out")


def require_format(name: str, *, int8: bool = False) -> None:
    """UsageError for a kind of file that there isn't, or that has no 8 bits, or where its packages are missing."""
    if name in _NOT_WRITTEN:
        raise UsageError(f"{name} is not written here: {_NOT_WRITTEN[name]}")
    require_backend(name, int8=int8)
    if name == "tensorrt":
        place_here()
    for each in (*PACKAGES[name], *(["nncf"] if int8 else [])):
        package(each, f"--int8 for {name}" if each == "nncf" else f"the format {name}")


def require_backend(name: str, *, int8: bool = False) -> None:
    """UsageError for a name that is none of `Backend`, or that has no 8 bits."""
    if name not in get_args(Backend):
        known = get_args(Backend)
        nearest = did_you_mean(_USUAL_NAMES.get(name, name), known) or f"; known are {', '.join(known)}"
        raise UsageError(f"no backend is called {name!r}{nearest}")
    if int8 and name in _NO_8_BITS:
        raise UsageError(_NO_8_BITS[name])


def renamed(path: Path, other: Path) -> None:
    """The same file under another name of its kind, with the part that belongs to it; that appears first."""
    for suffix in ([".bin"] if path.suffix == ".xml" else []) + [path.suffix]:
        os.replace(path.with_suffix(suffix), other.with_suffix(suffix))
