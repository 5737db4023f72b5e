"""The door to the packages that exported files are made and run with, which are an extra."""

from __future__ import annotations

import importlib
import os
from typing import Any

from detr.errors import UsageError
from detr.extras import is_installed, not_installed, require

NEEDED = {
    "onnx": ("onnx", "onnxscript"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "nncf": ("nncf",),
}
"""Module -> what has to be importable for it to do its work."""


_SAYS_NOTHING = {"nncf": ("NNCF_CI", "1")}
"""What keeps a package from telling its makers that it is used: NNCF does by default, by way of Google Analytics."""


def package(name: str, what: str = "this") -> Any:
    """The module; UsageError with the line to type where it isn't installed. `what` needs it."""
    if name == "tensorrt":
        _require_tensorrt(what)
    else:
        require("export", what, *NEEDED[name])
    if name in _SAYS_NOTHING:
        os.environ.setdefault(*_SAYS_NOTHING[name])
    return importlib.import_module(name)


def _require_tensorrt(what: str) -> None:
    """Of TensorRT there is one for each CUDA, which should be PyTorch's; so it is in no extra."""
    if not is_installed("tensorrt"):
        import torch

        cuda = (torch.version.cuda or "12").split(".")[0]
        raise UsageError(f"{what} needs {not_installed('tensorrt')}; type: pip install tensorrt-cu{cuda}")


def version(name: str) -> str:
    return str(package(name).__version__)
