"""A corrected copy of a data set: what can be put right without asking is, and the original stays as it was."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detr.data import Progress
from detr.data.annotations import SPLITS
from detr.data.coco import clipped
from detr.data.conversion import write_parts
from detr.data.doctor import Report
from detr.data.doctor_boxes import faults
from detr.data.doctor_images import Seen
from detr.data.writing import FORMATS, Part
from detr.errors import InputError, counted
from detr.files import folder_written_aside


def write_fixed(
    report: Report, out: str | os.PathLike[str], *, copy: bool = False, progress: Progress | None = None
) -> list[str]:
    """Write the set to the folder `out` in COCO's format, and say what is other than it was.

    Left out are images that can't be read, those of train (or val) that are in a later split too, and boxes that lie
    outside, are less than a pixel wide or high, or repeat another; boxes over the edge are cut. The rest is for people
    to decide: pictures that are twice in one split, boxes with two classes, classes that a split lacks.
    """
    changes: list[str] = []
    parts = [_fixed(seen, _leaked(report, seen.split), changes) for seen in report.seen]
    emptied = [part.split for part in parts if not part.sources]
    if emptied:
        raise InputError(f"nothing would be left of {' and '.join(emptied)}; it has to be put together anew")
    with folder_written_aside(out) as folder:
        write_parts(folder, parts, FORMATS["coco"], copy=copy, progress=progress)
    return changes


def _leaked(report: Report, split: str) -> set[int]:
    """The images of a split that a later one has too: there they are measured on, so they are not to be learnt from."""
    order = {name: place for place, name in enumerate(SPLITS)}
    found: set[int] = set()
    for group in report.groups:
        last = max(order[name] for name, _ in group)
        found.update(index for name, index in group if name == split and order[name] < last)
    return found


def _fixed(seen: Seen, leaked: set[int], changes: list[str]) -> Part:
    known, wrong = seen.annotations, faults(seen)
    is_read = np.array([look.problem is None for look in seen.looks], bool)
    is_apart = np.array([index not in leaked for index in range(len(seen.paths))], bool)
    images = is_read & is_apart
    dropped = wrong.outside | wrong.thin | wrong.repeated
    rows = images[known.image_indices] & ~dropped
    cut = wrong.over & rows
    said = np.stack([known.heights, known.widths], 1)
    box = ("box", "boxes")
    for count, what, then in (
        (int((~is_read).sum()), ("image",), "that can't be read left out"),
        (int((is_read & ~is_apart).sum()), ("image",), "of a later split too left out"),
        (int((dropped & images[known.image_indices]).sum()), box, "outside, too thin or repeated left out"),
        (int(cut.sum()), box, "over the edge cut"),
        (known.num_flat, box, "without width or height left out"),
        (int((images & (seen.sizes != said).any(1)).sum()), ("size",), "put right"),
    ):
        if count:
            changes.append(f"{seen.split}: {counted(count, *what)} {then}")
    within = _within(seen)
    found = replace(
        known,
        heights=seen.sizes[:, 0],
        widths=seen.sizes[:, 1],
        boxes=np.where(cut[:, None], within, known.boxes),
        areas=np.where(cut, np.minimum(known.areas, np.prod(within[:, 2:], 1)), known.areas),
    )
    paths = tuple(path for path, is_kept in zip(seen.paths, images, strict=True) if is_kept)
    return Part(seen.split, found.chosen(images, rows), paths)


def _within(seen: Seen) -> NDArray[np.float64]:
    """[A, 4] xywh within the images."""
    corners, _ = clipped(seen.annotations.boxes, seen.box_sizes[:, 0], seen.box_sizes[:, 1])
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
