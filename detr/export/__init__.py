"""Networks as files that other programs run (ONNX, OpenVINO, torch.export, TensorRT), and those files as runners."""

from detr.export.agreement import SURE, TOLERANCES, Agreement, Tolerance, agreement, any_sure
from detr.export.file_runner import FileRunner
from detr.export.form import Form
from detr.export.formats import (
    SUFFIXES,
    Backend,
    is_exported,
    renamed,
    require_device,
    require_format,
    require_weights,
)
from detr.export.onnx_runner import OnnxRunner
from detr.export.opening import open_runner, runner_for
from detr.export.openvino_runner import OpenVINORunner
from detr.export.pt2_runner import Pt2Runner
from detr.export.quantising import Calibration
from detr.export.seal import held_against
from detr.export.tensorrt_runner import TensorRTRunner
from detr.export.to_tensorrt import USUAL, Building
from detr.export.verifying import Verdict, verify
from detr.export.writing import form_for, of_input, write

__all__ = [
    "SUFFIXES",
    "SURE",
    "TOLERANCES",
    "USUAL",
    "Agreement",
    "Backend",
    "Building",
    "Calibration",
    "FileRunner",
    "Form",
    "OnnxRunner",
    "OpenVINORunner",
    "Pt2Runner",
    "TensorRTRunner",
    "Tolerance",
    "Verdict",
    "agreement",
    "any_sure",
    "form_for",
    "held_against",
    "is_exported",
    "of_input",
    "open_runner",
    "renamed",
    "require_device",
    "require_format",
    "require_weights",
    "runner_for",
    "verify",
    "write",
]
