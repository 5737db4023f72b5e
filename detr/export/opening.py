"""A runner for a backend: an exported file opened, or a network written as one and kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from detr.errors import InputError, UsageError
from detr.export.file_runner import FileRunner
from detr.export.formats import PACKAGES, SUFFIXES, require_backend
from detr.export.kept import kept_at
from detr.export.onnx_runner import OnnxRunner
from detr.export.openvino_runner import OpenVINORunner
from detr.export.pt2_runner import Pt2Runner
from detr.export.quantising import Calibration
from detr.export.seal import is_whole, require_whole
from detr.export.tensorrt_place import place_here
from detr.export.tensorrt_runner import TensorRTRunner
from detr.export.writing import form_for, of_input, write
from detr.files import kept_in
from detr.image import InputConfig
from detr.models import Network


def open_runner(path: str | os.PathLike[str], *, half: bool = False) -> FileRunner:
    """An exported file, run by ONNX Runtime, OpenVINO, PyTorch or TensorRT as its name ends; UsageError for none.

    A .pt2 or .engine is a program, which could do anything: open none that you don't trust.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no such exported file: {path}")
    is_xml = path.suffix.lower() == ".xml"
    if is_xml and not path.with_suffix(".bin").is_file():
        raise InputError(f"{path}: its numbers are missing; expected {path.with_suffix('.bin').name} beside it")
    if half and not is_xml:
        raise UsageError(f"{path} computes in what it was exported with; leave out half, or export it for openvino")
    require_whole(path)
    if is_xml:
        return OpenVINORunner(path, half=half)
    kinds: dict[str, type[Pt2Runner] | type[TensorRTRunner]] = {".pt2": Pt2Runner, ".engine": TensorRTRunner}
    return kinds.get(path.suffix.lower(), OnnxRunner)(path)


def runner_for(
    backend: str,
    network: Network,
    *,
    input: InputConfig | None = None,
    half: bool = False,
    calibration: Calibration | None = None,
    say: Callable[[str], None] | None = None,
) -> FileRunner:
    """The network as a file of that backend, made at first and kept, and opened.

    `input` is another than the network's own; `calibration` makes it 8 bits. UsageError for an unknown backend and
    where its packages are missing.
    """
    require_backend(backend)
    if half and backend == "onnx":
        raise UsageError("ONNX Runtime computes in float32 on a CPU; leave out half, or take the backend openvino")
    network = of_input(network, input)
    form = form_for(network)
    packages = [*PACKAGES[backend], *(["nncf"] if calibration else [])]
    more = ["" if calibration is None else calibration.key, *([str(place_here())] if backend == "tensorrt" else [])]
    path = kept_at(network, SUFFIXES[backend], packages, *more, form=form)
    there = path.is_file() and (path.suffix != ".xml" or path.with_suffix(".bin").is_file())
    if not there or not is_whole(path):
        kept_in("exports")
        if say is not None:
            say(f"making {path}, once for these weights")
        write(backend, network, path, calibration=calibration, form=form)
    return open_runner(path, half=half)
