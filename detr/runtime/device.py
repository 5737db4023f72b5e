"""Which device a run uses."""

from __future__ import annotations

import os

import torch

from detr.errors import UsageError


def choose_device(text: str = "auto") -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`, or a GPU's number; UsageError for one that isn't there.

    `auto` is the first GPU, or the CPU where there is none. A GPU always has its number, which some of PyTorch's
    functions ask for.
    """
    if text == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device("cuda", int(text)) if text.isdecimal() else torch.device(text)
    except RuntimeError:
        raise UsageError(
            f"device {text!r} is not known; expected auto, cpu, cuda, cuda:N, mps or a GPU's number"
        ) from None
    if device.type == "cuda":
        _require_gpu(device, text)
        device = torch.device("cuda", device.index or 0)
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("device 'mps': there is no Apple GPU here; use --device cpu")
    elif device.type != "cpu":
        raise UsageError(f"device {text!r} is not supported; expected auto, cpu, cuda, cuda:N, mps or a GPU's number")
    return device


def default_workers(processes: int = 1) -> int:
    """Loader processes for one of so many training processes on this machine: its share of the cores, at most 8."""
    return max(
        1,
        min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // processes,
    )


def half_type(device: torch.device) -> torch.dtype:
    """What `half` computes in: float16 on a GPU, bfloat16 on a CPU."""
    return torch.bfloat16 if device.type == "cpu" else torch.float16


def computes_bfloat16(device: torch.device) -> bool:
    """Whether this GPU has units for bfloat16; one that has not (before Ampere) emulates it, slower than float32."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _require_gpu(device: torch.device, text: str) -> None:
    if not torch.cuda.is_available():
        built = "PyTorch sees no GPU" if torch.version.cuda else "this PyTorch is built without CUDA"
        raise UsageError(f"device {text!r}: {built}; use --device cpu, or install a PyTorch for your GPU's driver")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"device {text!r}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
