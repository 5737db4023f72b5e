"""Networks as files that other programs run (ONNX, OpenVINO), and those files as runners."""

from detr.export.choice import Backend, is_exported, open_runner, runner_for, write
from detr.export.onnx_runner import OnnxRunner
from detr.export.openvino_runner import OpenVINORunner
from detr.export.quantising import Calibration

__all__ = [
    "Backend",
    "Calibration",
    "OnnxRunner",
    "OpenVINORunner",
    "is_exported",
    "open_runner",
    "runner_for",
    "write",
]
