"""The door to the packages that exported files are made and run with, which are an extra."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

from detr.errors import UsageError

NEEDED = {
    "onnx": ("onnx", "onnxscript"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "nncf": ("nncf",),
    "tensorrt": ("tensorrt",),
}
"""Module -> what has to be importable for it to do its work."""


_SAYS_NOTHING = {"nncf": ("NNCF_CI", "1")}
"""What keeps a package from telling its makers that it is used: NNCF does by default, by way of Google Analytics."""


def package(name: str) -> Any:
    """The module; UsageError with the line to type where it isn't installed."""
    for needed in NEEDED[name]:
        if importlib.util.find_spec(needed) is None:
            raise UsageError(f"this needs {needed}, which is not installed; type: pip install {_source(name)}")
    if name in _SAYS_NOTHING:
        os.environ.setdefault(*_SAYS_NOTHING[name])
    return importlib.import_module(name)


def _source(name: str) -> str:
    """What to ask pip for. Of TensorRT there is one for each CUDA, which should be PyTorch's."""
    if name != "tensorrt":
        return "'detr-toolkit[export]'"
    import torch

    return f"tensorrt-cu{(torch.version.cuda or '12').split('.')[0]}"


def version(name: str) -> str:
    return str(package(name).__version__)
