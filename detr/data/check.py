"""What a data set holds, and what is wrong with it, before any time is spent on training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from detr.classes import Classes
from detr.data.coco import CocoDataset, read_annotations
from detr.data.folders import inside
from detr.data.sources import Source
from detr.errors import InputError
from detr.image import read_image

Progress = Callable[..., Iterable[Any]]  # progress(iterable, total=, description=)


@dataclass(frozen=True)
class SplitReport:
    """The contents of one split; `problems` are the images that can't be read or aren't the size that is said."""

    source: Source
    classes: Classes
    counts: tuple[int, ...]  # boxes of each class, without crowds
    num_images: int
    num_empty: int  # images without any annotation
    num_boxes: int
    num_crowds: int
    notes: tuple[str, ...]
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        classes = [{"index": i, **row, "boxes": self.counts[i]} for i, row in enumerate(self.classes.to_json())]
        return {
            "annotations": str(self.source.annotations),
            "image_folder": str(self.source.images),
            "images": self.num_images,
            "images_without_boxes": self.num_empty,
            "boxes": self.num_boxes,
            "crowds": self.num_crowds,
            "classes": classes,
            "notes": list(self.notes),
            "problems": list(self.problems),
        }


def check_split(
    source: Source,
    *,
    classes: Classes | None = None,
    strict: bool = False,
    decode: bool = True,
    progress: Progress | None = None,
) -> SplitReport:
    """Read everything of a split, with `decode` also each image. InputError where it cannot be used at all."""
    annotations = read_annotations(source.annotations, classes=classes, strict=strict)
    dataset = CocoDataset(annotations, source.images)
    return SplitReport(
        source=source,
        classes=annotations.classes,
        counts=tuple(annotations.counts().tolist()),
        num_images=len(dataset),
        num_empty=len(dataset) - len(set(annotations.image_indices.tolist())),
        num_boxes=int((~annotations.crowd).sum()),
        num_crowds=int(annotations.crowd.sum()),
        notes=(*annotations.notes, *dataset.notes()),
        problems=_problems_of_images(dataset, progress) if decode else (),
    )


def _problems_of_images(dataset: CocoDataset, progress: Progress | None) -> tuple[str, ...]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found: Iterable[str | None] = threads.map(lambda index: _problem_of(dataset, index), range(len(dataset)))
        if progress:
            found = progress(found, total=len(dataset), description="reading images")
        return tuple(problem for problem in found if problem)


def _problem_of(dataset: CocoDataset, index: int) -> str | None:
    known = dataset.annotations
    path = dataset.images / inside(known.file_names[index])
    try:
        height, width = read_image(path).shape[:2]
    except InputError as problem:
        return str(problem)
    said = int(known.heights[index]), int(known.widths[index])
    if 0 in said or said == (height, width):
        return None
    return f"{path}: is {width} x {height} pixels, the annotation file says {said[1]} x {said[0]}"
