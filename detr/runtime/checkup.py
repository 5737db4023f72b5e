"""What of this machine matters to training and prediction: what is installed, what it can do, what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import features

from detr import __version__
from detr.errors import InputError, counted
from detr.extras import EXTRAS
from detr.files import home
from detr.runtime.device import computes_bfloat16
from detr.video.codecs import encoders

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "opencv-python", "av", "pycocotools", "scipy")
_CODECS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "avif": "AVIF", "libtiff": "TIFF", "jpg_2000": "JPEG 2000"}
_LEAST_FREE = 5e9  # bytes for checkpoints


@dataclass(frozen=True)
class Line:
    """One fact; `advice` where something is to be done about it."""

    about: str
    value: str
    advice: str = ""


def checkup() -> list[Line]:
    """What a report of a problem should begin with."""
    return [*_software(), *_devices(), *_codecs(), *_room(), *_extras()]


def _software() -> Iterator[Line]:
    yield Line("detr", __version__)
    yield Line("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    for name in _PACKAGES:
        version = _version(name)
        if version is None and name == "opencv-python":
            version = _version("opencv-python-headless")
        advice = "" if version else f"pip install {name}"
        yield Line(name, version or "not found", _opencv_fault() if name == "opencv-python" else advice)


def _opencv_fault() -> str:
    try:
        import detr.opencv  # noqa: F401
    except InputError as fault:
        return str(fault)
    return ""


def _devices() -> Iterator[Line]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Line("processor", f"{counted(cores, 'core')}, {counted(torch.get_num_threads(), 'thread')} of PyTorch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        bfloat16 = "bf16" if computes_bfloat16(torch.device("cuda", index)) else "no bf16"
        kind = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, {properties.major}.{properties.minor}"
        yield Line(f"GPU {index}", f"{kind}, {bfloat16}")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    if count:
        yield Line("CUDA", f"PyTorch is built with {built}")
    elif Path("/proc/driver/nvidia/version").exists():
        advice = "install a PyTorch for the driver: https://pytorch.org/get-started"
        yield Line("CUDA", f"an NVIDIA driver is there, but PyTorch ({built}) sees no GPU", advice)
    else:
        yield Line("CUDA", f"no GPU; PyTorch is built with {built}")
    if torch.backends.mps.is_available():
        yield Line("MPS", "an Apple GPU: --device mps")
    triton = _version("triton")
    asked = os.environ.get("DETR_KERNELS", "auto")
    advice = "the attention kernels need it: pip install triton" if count and triton is None else ""
    yield Line("Triton", f"{triton or 'not installed'}, DETR_KERNELS={asked}", advice)


def _codecs() -> Iterator[Line]:
    known = features.get_supported()
    there = [name for feature, name in _CODECS.items() if feature in known]
    lacking = [name for name in _CODECS.values() if name not in there]
    turbo = ", libjpeg-turbo" if "libjpeg_turbo" in known else ""
    advice = f"no {', '.join(lacking)}: such images can't be read; a newer Pillow may" if lacking else ""
    yield Line("images", f"{', '.join(there)}{turbo}", advice)
    video = encoders()
    advice = "" if "libx264" in video else "videos can't be written: pip install av"
    yield Line("video", ", ".join(video) or "no encoder", advice)


def _room() -> Iterator[Line]:
    for about, folder in (("working directory", Path.cwd()), ("DETR_HOME", home())):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        advice = "little room for checkpoints" if free < _LEAST_FREE else ""
        yield Line(about, f"{folder}, {free / 1e9:.0f} GB free", advice)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        advice = "loader processes need more: --shm-size=8g of Docker, or --workers 0" if free < 1e9 else ""
        yield Line("shared memory", f"{free / 1e9:.1f} GB free", advice)


def _extras() -> Iterator[Line]:
    for extra, packages in EXTRAS.items():
        versions = {name: _version(name) for name in packages}
        lacking = [name for name, version in versions.items() if version is None]
        words = ", ".join(f"{name} {version or '-'}" for name, version in versions.items())
        yield Line(f"extra {extra}", words, f"for more: pip install 'detr-toolkit[{extra}]'" if lacking else "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
