"""Where TensorRT engines are made and run: which TensorRT, on which GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from detr.errors import InputError, UsageError
from detr.export.packages import package


@dataclass(frozen=True)
class Place:
    """An engine runs where all of this is the same."""

    tensorrt: str  # 10.13.3.9
    gpu: str  # NVIDIA L4
    capability: str  # 8.9

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt} on {self.gpu} (compute capability {self.capability})"


def place_here() -> Place:
    """The GPU is PyTorch's present one. UsageError where there is none, or no TensorRT."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        raise UsageError("TensorRT needs an NVIDIA GPU, and PyTorch sees none here; for a CPU take onnx or openvino")
    version = package("tensorrt").__version__
    major, minor = torch.cuda.get_device_capability()
    return Place(version, torch.cuda.get_device_name(), f"{major}.{minor}")


def new_log(tensorrt: Any) -> Any:
    """What TensorRT is given to complain to; `text` is what it said, on one line. It says nothing by itself."""

    class Log(tensorrt.ILogger):
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.problems: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR):
                self.problems.append(msg)

        @property
        def text(self) -> str:
            return " ".join(" ".join(self.problems[:3]).split()) or "it gives no reason"

    return Log()


def started(kind: Callable[[Any], Any], log: Any) -> Any:
    """A builder or a runtime; InputError where there is none, as with a driver that is too old."""
    try:
        return kind(log)
    except TypeError:  # its bindings say only that there was nothing
        raise InputError(f"TensorRT doesn't start here: {log.text}") from None
