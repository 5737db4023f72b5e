"""COCO data sets: the annotation file as arrays, and the images with their boxes."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from detr.archives import StoredFile
from detr.bands import Bands
from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.coco_file import read_annotations
from detr.data.folders import ImageFolder
from detr.data.kept_pixels import Pixels, decoded
from detr.data.sample import Sample
from detr.errors import counted
from detr.image_file import read_reduced

__all__ = ["CocoDataset", "clipped", "read_annotations"]


class CocoDataset:
    """Images and their boxes, as training sees them.

    Boxes are clipped to the image; crowds and what lies outside the image are left out (the evaluator takes the raw
    boxes from `annotations`). Missing images and file names that leave the folder are an InputError at once. `pixels`
    may be changed for one that keeps what it has decoded (`detr.data.kept_pixels`), `begins` for one that wants to know
    which image is read now.
    """

    def __init__(self, annotations: Annotations, images: str | os.PathLike[str]) -> None:
        self.annotations = annotations
        self.channels: int | None = 3
        self.images = Path(images)
        self._folder = ImageFolder(self.images)
        self._folder.require(annotations.file_names)
        usable = np.flatnonzero(~annotations.crowd)
        order = usable[np.argsort(annotations.image_indices[usable], kind="stable")]
        self._rows = order  # of the annotations, image after image
        self._starts = np.searchsorted(annotations.image_indices[order], np.arange(len(self) + 1))
        # Shared with the loader's processes, so that together they warn once.
        self.pixels: Pixels = decoded
        self.begins: Callable[[int], object] | None = None
        self._has_warned = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def in_channels(self, channels: int | None) -> CocoDataset:
        """The same set, its images as `read_image` gives them with so many channels."""
        other = copy.copy(self)
        other.channels = channels
        return other

    @property
    def classes(self) -> Classes:
        return self.annotations.classes

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; InputError names the file if it cannot be read."""
        path = self._begun(index)
        pixels = self.pixels(index, path, self.channels)
        return self._sample(path, index, pixels, pixels.shape[:2])

    def reduced(self, index: int, short: int) -> Sample:
        """The sample with fewer pixels where that is faster to read, but a shorter side of no less than `short`."""
        path = self._begun(index)
        return self._sample(path, index, *read_reduced(path, short, channels=self.channels))

    def file(self, index: int) -> StoredFile:
        """Where image `index` is: a path, or its place in an archive."""
        return self._folder.file(self.annotations.file_names[index])

    def _begun(self, index: int) -> StoredFile:
        if self.begins is not None:
            self.begins(index)
        return self.file(index)

    def _sample(self, path: StoredFile, index: int, pixels: Bands, size: tuple[int, int]) -> Sample:
        """`pixels` of an image whose (height, width) on disk is `size`."""
        known = self.annotations
        self._warn_of_other_size(path, index, *size)
        rows = self._rows[self._starts[index] : self._starts[index + 1]]
        boxes, kept = clipped(known.boxes[rows], *size)
        height, width = pixels.shape[:2]
        scale = width / size[1], height / size[0]
        return Sample(
            image=tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
            boxes=tv_tensors.BoundingBoxes(
                torch.from_numpy((boxes[kept] * (scale * 2)).astype(np.float32)),
                format="XYXY",
                canvas_size=(height, width),
            ),
            labels=torch.from_numpy(known.labels[rows][kept]),
            image_id=known.image_ids[index],
            size=size,
        )

    def notes(self) -> list[str]:
        """What is worth saying about the boxes as training will see them, besides `annotations.notes`."""
        known = self.annotations
        sized = (known.heights > 0)[known.image_indices] & (known.widths > 0)[known.image_indices] & ~known.crowd
        images = known.image_indices[sized]
        before = known.boxes[sized]
        after, kept = clipped(before, known.heights[images], known.widths[images])
        corners = np.concatenate([before[:, :2], before[:, :2] + before[:, 2:]], 1)
        num_clipped = int((np.abs(after - corners).max(1, initial=0) > 0.5)[kept].sum())
        lines = []
        if num_clipped:
            lines.append(
                f"{counted(num_clipped, 'box reaches', 'boxes reach')} over the edge of the image, clipped for training"
            )
        if not kept.all():
            lines.append(
                f"{counted(int((~kept).sum()), 'box lies', 'boxes lie')} outside of the image, left out of training"
            )
        return lines

    def _warn_of_other_size(self, path: StoredFile, index: int, height: int, width: int) -> None:
        said = int(self.annotations.heights[index]), int(self.annotations.widths[index])
        if 0 in said or said == (height, width) or self._has_warned.item():
            return
        self._has_warned.fill_(1)
        warnings.warn(
            f"{path} is {width} x {height} pixels but the annotation file says {said[1]} x {said[0]}; "
            "taking sizes from the images (said once)",
            stacklevel=4,
        )


def clipped(
    boxes: NDArray[np.float64], height: int | NDArray[np.int64], width: int | NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """[N, 4] xywh -> [N, 4] xyxy within the image, and [N] whether anything of the box is left."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    corners[:, 0::2] = np.clip(corners[:, 0::2], 0, np.reshape(width, (-1, 1)))
    corners[:, 1::2] = np.clip(corners[:, 1::2], 0, np.reshape(height, (-1, 1)))
    return corners, (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
