"""How much memory some work takes at the most."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import torch

_STATUS, _PEAKS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MACHINE, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


class Memory:
    """From when it is made until it is asked: of the process on Linux, of PyTorch's allocations on a GPU."""

    def __init__(self) -> None:
        self._on_gpus: dict[int, int] = {}
        for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
            torch.cuda.reset_peak_memory_stats(index)
            self._on_gpus[index] = torch.cuda.memory_allocated(index)
        self._before = 0
        if _PEAKS.exists():
            _give_back()
            _PEAKS.write_text("5", encoding="ascii")  # the highest mark starts anew
            self._before = _said("VmRSS")

    def most(self, device: torch.device) -> int | None:
        """Bytes beyond what was taken at the beginning; None where the system doesn't tell."""
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) - self._on_gpus.get(device.index or 0, 0)
        return max(0, _said("VmHWM") - self._before) if _PEAKS.exists() else None


def _give_back() -> None:
    """To the system what is free, so that work that takes it again is seen to; only glibc has a word for that."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _said(name: str) -> int:
    """Bytes, by the process's own status."""
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 0


def free_memory() -> int | None:
    """Bytes of main memory that programs may still take, within the limit of a container; None where none tells."""
    if not _MACHINE.exists():
        return None
    found = re.search(
        r"^MemAvailable:\s+(\d+) kB", _MACHINE.read_text(encoding="ascii", errors="replace"), re.MULTILINE
    )
    free = [] if found is None else [1024 * int(found[1])]
    limit, used = (_number(_GROUP / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(max(0, limit - used))
    return min(free, default=None)


def _number(path: Path) -> int | None:
    """What a file of the kernel says, if that is a number."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
