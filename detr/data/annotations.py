"""Ground truth of a data set as arrays: read once, validated once, used by training and by the evaluator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detr.classes import Classes

SPLITS = ("train", "val", "test")
SPLIT_OF_FOLDER = {"train": "train", "valid": "val", "val": "val", "test": "test"}
"""What people call the folders of the splits."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """All boxes of a data set. `I` images, `A` annotations; annotations stand in file order."""

    classes: Classes
    image_ids: tuple[int | str, ...]  # I, in file order
    file_names: tuple[str, ...]  # I, relative to the image folder
    heights: NDArray[np.int64]  # [I], 0 where the file doesn't say
    widths: NDArray[np.int64]  # [I]
    image_indices: NDArray[np.int64]  # [A] into the images
    labels: NDArray[np.int64]  # [A] class indices
    boxes: NDArray[np.float64]  # [A, 4] xywh in pixels, as in the file
    areas: NDArray[np.float64]  # [A] the file's own area, else w * h
    crowd: NDArray[np.bool_]  # [A]
    notes: tuple[str, ...] = ()  # what reading found worth saying, one short line each
    num_flat: int = 0  # boxes without width or height, left out

    def counts(self) -> NDArray[np.int64]:
        """[C] how many boxes each class has, crowds apart."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.classes))


class Source(Protocol):
    """Where a split of a data set is, in whatever format."""

    @property
    def annotations(self) -> Path:
        """The file or folder that its boxes are in, or that names it."""

    @property
    def images(self) -> Path:
        """The folder that the images' file names are relative to."""

    def read(self, *, classes: Classes | None = None, strict: bool = False) -> Annotations:
        """Everything but the pixels, with the indices of `classes` where given, matched by name.

        InputError says what is wrong, where and how often. Boxes without width or height are left out with a note;
        with `strict`, or when they are many, that is an error.
        """
