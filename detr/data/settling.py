"""From what a reader has read, whatever the format, to the annotations that training and evaluation take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.errors import InputError, counted, did_you_mean, listed

_MOST_FLAT = 0.05  # a larger share of boxes without an area is a mistake in the file, not a slip


def settled(
    read: Annotations, path: Path, place_of: Callable[[int], str], *, classes: Classes | None = None, strict: bool
) -> Annotations:
    """`read` with the indices of `classes`, matched by name, without flat boxes, and with remarks among its notes.

    `place_of` says where in `path` a box of `read` stands. InputError for boxes of unknown classes, and for boxes
    without width or height where they are many, or `strict` is on.
    """
    notes = list(read.notes)
    labels, known = read.labels, read.classes
    if classes is not None:
        index_of, known = _matched(read, classes, path)
        labels = index_of[labels]
    kept = _with_area(read.boxes, path, place_of, strict, notes)
    found = replace(
        read,
        classes=known,
        image_indices=read.image_indices[kept],
        labels=labels[kept],
        boxes=read.boxes[kept],
        areas=read.areas[kept],
        crowd=read.crowd[kept],
        num_flat=int((~kept).sum()),
    )
    return replace(found, notes=(*notes, *_remarks(found)))


def _with_area(
    boxes: NDArray[np.float64], path: Path, place_of: Callable[[int], str], strict: bool, notes: list[str]
) -> NDArray[np.bool_]:
    kept = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    dropped = np.flatnonzero(~kept)
    if len(dropped):
        x, y, w, h = boxes[dropped[0]].tolist()
        what = f"{len(dropped):,} of {len(boxes):,} boxes have no width or height; first: {place_of(int(dropped[0]))}"
        what += f" [{x:g}, {y:g}, {w:g}, {h:g}]"
        if strict or len(dropped) > _MOST_FLAT * len(boxes):
            raise InputError(f"{path}: {what} (expected x, y, width, height)")
        notes.append(f"{what}; left out")
    return kept


def _matched(read: Annotations, classes: Classes, path: Path) -> tuple[NDArray[np.int64], Classes]:
    """The indices of `classes` by name. The ids become those of this file, for results are written in its terms."""
    ids, names = read.classes.ids, read.classes.names
    used = np.bincount(read.labels, minlength=len(ids))
    exact = {name: index for index, name in enumerate(classes.names)}
    plain = read.classes.matches_by_name(classes)
    index_of = np.array([exact.get(name, plain.get(i, -1)) for i, name in enumerate(names)])
    missing = [names[i] for i in np.flatnonzero((index_of < 0) & (used > 0))]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} categories with boxes are none of the {len(classes)} expected classes "
            f"({listed(classes.names)}); "
            f"first: {missing[0]!r}{did_you_mean(missing[0], classes.names)}"
        )
    id_of = dict(zip(index_of.tolist(), ids, strict=True))
    if len(set(index_of[index_of >= 0].tolist())) < int((index_of >= 0).sum()):
        raise InputError(f"{path}: two of its categories are one and the same of the {len(classes)} expected classes")
    taken = set(ids)
    free = (number for number in range(len(ids) + len(classes) + 1) if number not in taken)
    new_ids = []
    for index, old in enumerate(classes.ids):
        new_ids.append(id_of[index] if index in id_of else old if old not in taken else next(free))
        taken.add(new_ids[-1])
    return index_of, Classes(tuple(new_ids), classes.names)


def _remarks(found: Annotations) -> list[str]:
    counts = found.counts()
    lines = []
    if len(found.boxes) and not counts.any():
        lines.append("all annotations are crowds: nothing to learn, nothing to find")
    twice = len(found.file_names) - len(set(found.file_names))
    if twice:
        lines.append(f"{counted(twice, 'image has', 'images have')} the file name of another one")
    empty = [found.classes.names[i] for i in np.flatnonzero(counts == 0)]
    if empty and counts.any():
        lines.append(f"{len(empty)} of {len(found.classes)} classes have no boxes: {listed(empty)}")
    return lines
