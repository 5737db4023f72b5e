"""A network written as a file of any kind."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from detr.export.about import About, about_of
from detr.export.form import PLAIN, Form
from detr.export.formats import require_backend
from detr.export.packages import package
from detr.export.quantising import Calibration, quantised
from detr.export.seal import seal
from detr.export.to_onnx import add_about, write_onnx
from detr.export.to_openvino import read_openvino, write_openvino
from detr.export.to_pt2 import write_pt2
from detr.export.to_tensorrt import USUAL, Building, write_tensorrt
from detr.files import written_aside
from detr.image import InputConfig
from detr.models import Network


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
    require_backend(backend, int8=calibration is not None)
    about = about_of(network, form, int8=calibration is not None)
    if backend == "torch-export":
        write_pt2(network, path, about)
    elif backend == "tensorrt":
        write_tensorrt(network, path, about, building)
    elif backend == "onnx":
        _write_onnx(network, path, about, calibration)
    else:
        _write_openvino(network, path, about, calibration)


def _write_onnx(network: Network, path: Path, about: About, calibration: Calibration | None) -> None:
    onnx = package("onnx")
    with written_aside(path) as aside:
        write_onnx(network, aside, about)
        if calibration is not None:
            model = quantised(onnx.load(aside), about, calibration)
            add_about(model, about)
            onnx.save(model, aside)
        seal(aside)


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


def form_for(network: Network) -> Form:
    """Of any size where the network keeps the aspect of images, which would be padded to one size else."""
    return Form(open_size=network.config.input.keeps_aspect)


def of_input(network: Network, input: InputConfig | None) -> Network:
    """The same weights for another size of input."""
    if input is None or input == network.config.input:
        return network
    other = copy.copy(network)
    other.config = network.config.model_copy(update={"input": input})
    return other
