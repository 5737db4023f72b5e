"""What a data set holds, and what is wrong with it, before any time is spent on training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detr.classes import Classes
from detr.data import Progress
from detr.data.annotations import Source
from detr.data.coco import CocoDataset
from detr.data.soundness import problem_when_decoded, problems_of_images


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
        classes = [{**row, "boxes": count} for row, count in zip(self.classes.rows(), self.counts, strict=True)]
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
    annotations = source.read(classes=classes, strict=strict)
    dataset = CocoDataset(annotations, source.images).in_channels(None)
    return SplitReport(
        source=source,
        classes=annotations.classes,
        counts=tuple(annotations.counts().tolist()),
        num_images=len(dataset),
        num_empty=len(dataset) - len(set(annotations.image_indices.tolist())),
        num_boxes=int((~annotations.crowd).sum()),
        num_crowds=int(annotations.crowd.sum()),
        notes=(*annotations.notes, *dataset.notes()),
        problems=problems_of_images(dataset, problem_when_decoded, progress) if decode else (),
    )
