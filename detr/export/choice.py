"""A network made ready for a backend, or an exported file opened: a `Runner` either way."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from detr.errors import InputError, UsageError, did_you_mean
from detr.export.about import about_of
from detr.export.kept import kept_at
from detr.export.onnx_runner import OnnxRunner
from detr.export.openvino_runner import OpenVINORunner
from detr.export.packages import package
from detr.export.quantising import Calibration, quantised
from detr.export.to_onnx import add_about, write_onnx
from detr.export.to_openvino import read_openvino, write_openvino
from detr.files import written_aside
from detr.image import InputConfig
from detr.models import Network

Backend = Literal["onnx", "openvino"]
Say = Callable[[str], None]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml"}


def is_exported(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES.values()


def open_runner(path: str | os.PathLike[str], *, half: bool = False) -> OnnxRunner | OpenVINORunner:
    """An exported file, by ONNX Runtime or OpenVINO as its name ends. UsageError where there is none."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no such exported file: {path}")
    if path.suffix.lower() == ".xml":
        if not path.with_suffix(".bin").is_file():
            raise InputError(f"{path}: its numbers are missing; expected {path.with_suffix('.bin').name} beside it")
        return OpenVINORunner(path, half=half)
    _no_half(half)
    return OnnxRunner(path)


def runner_for(
    backend: str,
    network: Network,
    *,
    input: InputConfig | None = None,
    half: bool = False,
    calibration: Calibration | None = None,
    say: Say | None = None,
) -> OnnxRunner | OpenVINORunner:
    """The network as a file of that backend, made at first and kept, and opened.

    `input` is another than the network's own; `calibration` makes it 8 bits. UsageError for an unknown backend and
    where its packages are missing.
    """
    _known(backend)
    if backend == "onnx":
        _no_half(half)
    network = of_input(network, input)
    packages = ["onnx", "openvino" if backend == "openvino" else "onnxruntime", *(["nncf"] if calibration else [])]
    path = kept_at(network, SUFFIXES[backend], packages, "" if calibration is None else calibration.key)
    whole = path.is_file() and (backend == "onnx" or path.with_suffix(".bin").is_file())
    if not whole:
        if say is not None:
            say(f"making {path}, once for these weights")
        write(backend, network, path, calibration=calibration)
    return open_runner(path, half=half)


def write(backend: str, network: Network, path: Path, *, calibration: Calibration | None = None) -> None:
    """The network as a file of that backend; in 8 bits with a calibration."""
    if _known(backend) == "onnx":
        _write_onnx(network, path, calibration)
    else:
        _write_openvino(network, path, calibration)


def _write_onnx(network: Network, path: Path, calibration: Calibration | None) -> None:
    if calibration is None:
        write_onnx(network, path)
        return
    onnx, about = package("onnx"), replace(about_of(network), int8=True)
    with written_aside(path) as aside:
        write_onnx(network, aside)
        model = quantised(onnx.load(aside), about, calibration)
        add_about(model, about)
        onnx.save(model, aside)


def _write_openvino(network: Network, path: Path, calibration: Calibration | None) -> None:
    package("openvino")
    about = replace(about_of(network), int8=calibration is not None)
    with TemporaryDirectory() as folder:
        between = Path(folder) / "network.onnx"
        write_onnx(network, between)
        model: Any = read_openvino(between)
        if calibration is not None:
            model.reshape({each: [1, *each.partial_shape[1:]] for each in model.inputs})
            model = quantised(model, about, calibration)
            model.reshape({each: [-1, *each.partial_shape[1:]] for each in model.inputs})
        write_openvino(model, about, path)


def of_input(network: Network, input: InputConfig | None) -> Network:
    """The same weights for another size of input."""
    if input is None or input == network.config.input:
        return network
    other = copy.copy(network)
    other.config = network.config.model_copy(update={"input": input})
    return other


def _known(backend: str) -> str:
    if backend not in get_args(Backend):
        nearest = did_you_mean(backend, get_args(Backend)) or f"; known are {', '.join(get_args(Backend))}"
        raise UsageError(f"no backend is called {backend!r}{nearest}")
    return backend


def _no_half(half: bool) -> None:
    if half:
        raise UsageError("ONNX Runtime computes in float32 on a CPU; leave out half, or take the backend openvino")
