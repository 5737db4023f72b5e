"""What the doctor sees of an image: whether it can be read, its size, how it is turned, and what it looks like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detr.archives import StoredFile
from detr.bands import shown
from detr.data.annotations import Annotations
from detr.errors import InputError
from detr.image import RGB
from detr.image_file import read_image, read_orientation

THUMBNAIL = 16  # pixels of a side


@dataclass(frozen=True, eq=False)
class Look:
    """An image file; without `problem` it was decoded whole."""

    size: tuple[int, int]  # (height, width), upright
    orientation: int = 1  # of the EXIF
    fingerprint: int = 0  # of 64 bits
    thumbnail: NDArray[np.uint8] | None = None  # [16, 16] grey
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """A split with its images looked at."""

    split: str
    annotations: Annotations
    paths: tuple[StoredFile, ...]
    looks: tuple[Look, ...]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """[I, 2] height and width: those of the images, or as is said of one that can't be read."""
        said = np.stack([self.annotations.heights, self.annotations.widths], 1)
        own = np.array([look.size for look in self.looks], np.int64).reshape(-1, 2)
        return np.where(own > 0, own, said)

    @cached_property
    def box_sizes(self) -> NDArray[np.int64]:
        """[A, 2] height and width of each box's image."""
        return self.sizes[self.annotations.image_indices]


def look_at(path: StoredFile) -> Look:
    try:
        pixels = shown(read_image(path, channels=None))
        orientation = read_orientation(path)
    except InputError as problem:
        return Look((0, 0), problem=str(problem))
    height, width = pixels.shape[:2]
    return Look((height, width), orientation, *fingerprint(pixels))


def fingerprint(pixels: RGB) -> tuple[int, NDArray[np.uint8]]:
    """64 bits that stay when a picture is saved or resized anew, and a thumbnail to make sure.

    Each bit says whether one of 8 x 9 cells is darker than its right neighbour (a "difference hash").
    """
    grey = Image.fromarray(pixels).convert("L")
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    return int.from_bytes(bits.tobytes(), "big"), thumbnail
