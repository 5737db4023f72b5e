"""A network made ready for a backend, or an exported file opened: a `Runner` either way."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from detr.errors import InputError, UsageError, did_you_mean
from detr.export.about import About, about_of
from detr.export.file_runner import FileRunner
from detr.export.form import PLAIN, Form
from detr.export.kept import kept_at
from detr.export.onnx_runner import OnnxRunner
from detr.export.openvino_runner import OpenVINORunner
from detr.export.packages import package
from detr.export.pt2_runner import Pt2Runner
from detr.export.quantising import Calibration, quantised
from detr.export.tensorrt_place import place_here
from detr.export.tensorrt_runner import TensorRTRunner
from detr.export.to_onnx import add_about, write_onnx
from detr.export.to_openvino import read_openvino, write_openvino
from detr.export.to_pt2 import write_pt2
from detr.export.to_tensorrt import USUAL, Building, write_tensorrt
from detr.files import written_aside
from detr.image import InputConfig
from detr.models import Network

Backend = Literal["onnx", "openvino", "torch-export", "tensorrt"]
Say = Callable[[str], None]
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


def open_runner(path: str | os.PathLike[str], *, half: bool = False) -> FileRunner:
    """An exported file, run by ONNX Runtime, OpenVINO, PyTorch or TensorRT as its name ends; UsageError for none.

    A .pt2 or .engine is a program, which could do anything: open none that you don't trust.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no such exported file: {path}")
    if path.suffix.lower() == ".xml":
        if not path.with_suffix(".bin").is_file():
            raise InputError(f"{path}: its numbers are missing; expected {path.with_suffix('.bin').name} beside it")
        return OpenVINORunner(path, half=half)
    if half:
        raise UsageError(f"{path} computes in what it was exported with; leave out half, or export it for openvino")
    kinds: dict[str, type[Pt2Runner] | type[TensorRTRunner]] = {".pt2": Pt2Runner, ".engine": TensorRTRunner}
    return kinds.get(path.suffix.lower(), OnnxRunner)(path)


def require_device(path: str | os.PathLike[str], device: str) -> None:
    """UsageError for an exported file on a device that it doesn't run on."""
    there = "cuda" if Path(path).suffix.lower() == SUFFIXES["tensorrt"] else "cpu"
    if device in ("auto", there):
        return
    how = "on the CPU here" if there == "cpu" else "on a GPU, chosen by CUDA_VISIBLE_DEVICES"
    raise UsageError(f"--device {device}: {path} is an exported file, which runs {how}; leave it out")


def runner_for(
    backend: str,
    network: Network,
    *,
    input: InputConfig | None = None,
    half: bool = False,
    calibration: Calibration | None = None,
    say: Say | None = None,
) -> FileRunner:
    """The network as a file of that backend, made at first and kept, and opened.

    `input` is another than the network's own; `calibration` makes it 8 bits. UsageError for an unknown backend and
    where its packages are missing.
    """
    _known(backend)
    if backend == "onnx":
        _no_half(half)
    network = of_input(network, input)
    form = form_for(network)
    packages = [*PACKAGES[backend], *(["nncf"] if calibration else [])]
    more = ["" if calibration is None else calibration.key, *([str(place_here())] if backend == "tensorrt" else [])]
    path = kept_at(network, SUFFIXES[backend], packages, *more, form=form)
    whole = path.is_file() and (path.suffix != ".xml" or path.with_suffix(".bin").is_file())
    if not whole:
        if say is not None:
            say(f"making {path}, once for these weights")
        write(backend, network, path, calibration=calibration, form=form)
    return open_runner(path, half=half)


def write(
    backend: str,
    network: Network,
    path: Path,
    *,
    calibration: Calibration | None = None,
    form: Form = PLAIN,
    building: Building = USUAL,
) -> None:
    """The network as a file of that backend; in 8 bits with a calibration. UsageError for what can't go together."""
    about = about_of(network, form, int8=calibration is not None)
    if _known(backend) in _NO_8_BITS and calibration is not None:
        raise UsageError(_NO_8_BITS[backend])
    if backend == "torch-export":
        write_pt2(network, path, about)
    elif backend == "tensorrt":
        write_tensorrt(network, path, about, building)
    elif backend == "onnx":
        _write_onnx(network, path, about, calibration)
    else:
        _write_openvino(network, path, about, calibration)


def _write_onnx(network: Network, path: Path, about: About, calibration: Calibration | None) -> None:
    if calibration is None:
        write_onnx(network, path, about)
        return
    onnx = package("onnx")
    with written_aside(path) as aside:
        write_onnx(network, aside, about)
        model = quantised(onnx.load(aside), about, calibration)
        add_about(model, about)
        onnx.save(model, aside)


def _write_openvino(network: Network, path: Path, about: About, calibration: Calibration | None) -> None:
    package("openvino")
    with TemporaryDirectory() as folder:
        between = Path(folder) / "network.onnx"
        write_onnx(network, between, about)
        model: Any = read_openvino(between)
        if calibration is not None:
            model.reshape({each: [1, *each.partial_shape[1:]] for each in model.inputs})
            model = quantised(model, about, calibration)
            if about.form.open_batch:
                model.reshape({each: [-1, *each.partial_shape[1:]] for each in model.inputs})
        write_openvino(model, about, path)


def of_input(network: Network, input: InputConfig | None) -> Network:
    """The same weights for another size of input."""
    if input is None or input == network.config.input:
        return network
    other = copy.copy(network)
    other.config = network.config.model_copy(update={"input": input})
    return other


def renamed(path: Path, other: Path) -> None:
    """The same file under another name of its kind, with the part that belongs to it; that appears first."""
    for suffix in ([".bin"] if path.suffix == ".xml" else []) + [path.suffix]:
        os.replace(path.with_suffix(suffix), other.with_suffix(suffix))


def require_format(name: str, *, int8: bool = False) -> None:
    """UsageError for a kind of file that there isn't, or that has no 8 bits, or where its packages are missing."""
    if name in _NOT_WRITTEN:
        raise UsageError(f"{name} is not written here: {_NOT_WRITTEN[name]}")
    _known(name)
    if int8 and name in _NO_8_BITS:
        raise UsageError(_NO_8_BITS[name])
    if name == "tensorrt":
        place_here()
    for each in (*PACKAGES[name], *(["nncf"] if int8 else [])):
        package(each)


def form_for(network: Network) -> Form:
    """Of any size where the network keeps the aspect of images, which would be padded to one size else."""
    return Form(open_size=network.config.input.keeps_aspect)


def _known(backend: str) -> str:
    if backend not in get_args(Backend):
        nearest = did_you_mean(backend, get_args(Backend)) or f"; known are {', '.join(get_args(Backend))}"
        raise UsageError(f"no backend is called {backend!r}{nearest}")
    return backend


def _no_half(half: bool) -> None:
    if half:
        raise UsageError("ONNX Runtime computes in float32 on a CPU; leave out half, or take the backend openvino")
