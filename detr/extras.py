"""The extras of setup.cfg: which packages come with each, and the line to type where one lacks."""

from __future__ import annotations

import importlib.util

from detr.errors import UsageError

EXTRAS = {
    "plots": ("matplotlib", "tensorboard"),
    "timm": ("timm",),
    "track": ("trackers",),
    "bands": ("tifffile", "imagecodecs"),
    "tune": ("optuna",),
    "serve": ("fastapi", "uvicorn", "python-multipart", "prometheus-client"),
    "export": ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"),
}


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package.replace("-", "_")) is not None


def require(extra: str, what: str, *packages: str) -> None:
    """UsageError with the line to type unless the packages, else all of the extra's, are there for `what`."""
    assert set(packages) <= set(EXTRAS[extra])
    lacking = [package for package in packages or EXTRAS[extra] if not is_installed(package)]
    if lacking:
        raise UsageError(f"{what} needs {not_installed(*lacking)}; type: pip install 'detr-toolkit[{extra}]'")


def not_installed(*packages: str) -> str:
    return f"{', '.join(packages)}, which {'are' if len(packages) > 1 else 'is'} not installed"
