"""Decoded images kept for the next epoch, in shared memory or on disk: the same pixels without decoding again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from detr.archives import StoredFile, state_of
from detr.bands import Bands
from detr.data.annotations import Annotations
from detr.errors import InputError, UsageError
from detr.files import home, kept_in, written_aside
from detr.image_file import read_image

PLACES = ("ram", "disk")
_SHARED = Path("/dev/shm")
_SPARED = 1 << 30  # bytes that are left to everybody else


class Pixels(Protocol):
    """Where the pixels of image `index`, in the file `path`, come from; InputError where they can't be read."""

    def __call__(self, index: int, path: StoredFile, channels: int | None) -> Bands: ...


def decoded(index: int, path: StoredFile, channels: int | None) -> Bands:
    """From the file, each time."""
    return read_image(path, channels=channels)


def kept(place: str, sets: Sequence[Annotations], *, channels: int = 3) -> list[Pixels]:
    """For each set, in `ram` or on `disk`; UsageError where there is no room, or for `ram` no word of their sizes."""
    if place not in PLACES:
        raise UsageError(f"cache {place!r}: expected one of {', '.join(PLACES)}")
    needed = sum(int((each.heights.astype(np.int64) * each.widths).sum()) * channels for each in sets)
    folder = home() / "pixels"
    if place == "disk":
        kept_in("pixels")
        free = shutil.disk_usage(folder).free + sum(file.stat().st_size for file in folder.glob("*.npy"))
    else:
        free = _free_memory()
    if place == "ram" and not needed and any(each.image_ids for each in sets):
        raise UsageError("cache 'ram' needs the sizes of the images, which the annotations don't say; use 'disk'")
    if needed > free - _SPARED:
        raise UsageError(
            f"cache {place!r}: the images take {_in_words(needed)} decoded, and {_in_words(free)} are free, of "
            "which 1 GB is left alone"
        )
    return [InMemory(each, channels) if place == "ram" else OnDisk(folder) for each in sets]


class InMemory:
    """In memory that all processes of a loader share; each of `torchrun`'s has its own.

    An image whose size is not as the annotations say, or unknown to them, is decoded each time.
    """

    def __init__(self, annotations: Annotations, channels: int) -> None:
        self.shapes = [(int(h), int(w), channels) for h, w in zip(annotations.heights, annotations.widths, strict=True)]
        sizes = [height * width * channels for height, width, _ in self.shapes]
        self.starts = [0, *np.cumsum(sizes).tolist()]
        self.pixels = torch.empty(self.starts[-1], dtype=torch.uint8).share_memory_()
        self.is_there = torch.zeros(len(sizes), dtype=torch.bool).share_memory_()

    def __call__(self, index: int, path: StoredFile, channels: int | None) -> Bands:
        place = self.pixels[self.starts[index] : self.starts[index + 1]]
        if self.is_there[index]:
            return place.numpy().reshape(self.shapes[index]).copy()
        pixels = read_image(path, channels=channels)
        if pixels.shape == self.shapes[index]:
            place.copy_(torch.from_numpy(pixels).flatten())
            self.is_there[index] = True  # last: another process may decode it too, but never see half of it
        return pixels


class OnDisk:
    """Uncompressed in `$DETR_HOME/pixels`, for this run and later ones; an image that changes is decoded anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, index: int, path: StoredFile, channels: int | None) -> Bands:
        try:
            key = repr((state_of(path), channels))
        except OSError as problem:
            raise InputError(f"{path}: {problem.strerror}") from None
        file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        try:
            return np.load(file, allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):  # not there, or damaged: then it is made anew
            pixels = read_image(path, channels=channels)
        with written_aside(file) as aside, aside.open("wb") as stream:
            np.save(stream, pixels)
        return pixels


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _free_memory() -> int:
    """Bytes that shared memory may still take: that of the machine, and of its file system where it is one."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    status = Path("/proc/meminfo")
    if status.exists():  # what the page cache holds is free too
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    return min(free, shutil.disk_usage(_SHARED).free) if _SHARED.is_dir() else free
