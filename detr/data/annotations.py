"""Ground truth of a data set as arrays: read once, validated once, used by training and by the evaluator."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detr.classes import Classes

SPLITS = ("train", "val", "test")
SPLIT_NAME = re.compile(
    "(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?))(?![A-Za-z])", re.IGNORECASE
)
"""How the names of a split's files and folders begin: train2017, Validation, test."""


def split_of(name: str) -> str | None:
    """Which of `SPLITS` a file or folder is called after; None where it is none."""
    match = SPLIT_NAME.match(name)
    return match.lastgroup if match else None


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

    def chosen(self, images: NDArray[np.bool_], rows: NDArray[np.bool_] | None = None) -> Annotations:
        """Only the images of the mask [I], and of their annotations only those of the mask [A], where given."""
        kept = images[self.image_indices] if rows is None else images[self.image_indices] & rows
        places = np.flatnonzero(images)
        return replace(
            self,
            image_ids=tuple(self.image_ids[place] for place in places),
            file_names=tuple(self.file_names[place] for place in places),
            heights=self.heights[images],
            widths=self.widths[images],
            image_indices=(np.cumsum(images) - 1)[self.image_indices[kept]],
            labels=self.labels[kept],
            boxes=self.boxes[kept],
            areas=self.areas[kept],
            crowd=self.crowd[kept],
        )


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
