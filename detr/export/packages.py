"""The door to the packages that exported files are made and run with, which are an extra."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any

from detr.errors import UsageError

NEEDED = {
    "onnx": ("onnx", "onnxscript"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "nncf": ("nncf",),
}
"""Module -> what has to be importable for it to do its work."""


def package(name: str) -> Any:
    """The module; UsageError with the line to type where it isn't installed."""
    for needed in NEEDED[name]:
        if importlib.util.find_spec(needed) is None:
            raise UsageError(f"this needs {needed}, which is not installed; type: pip install 'detr-toolkit[export]'")
    return importlib.import_module(name)


def version(name: str) -> str:
    package(name)
    return importlib.metadata.version(name)
