"""Damaged images found before training, not in its third hour."""

from __future__ import annotations

import os
from collections.abc import Callable

from detr.data import Progress
from detr.data.coco import CocoDataset
from detr.data.threads import on_all_cores
from detr.errors import InputError, counted
from detr.image_file import read_image

_ENDS = {
    b"\xff\xd8\xff": b"\xff\xd9",
    b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82",
}  # how whole JPEG and PNG files begin and end


def require_sound_images(dataset: CocoDataset, *, progress: Progress | None = None) -> None:
    """InputError counts the damaged images and names the first five.

    Beginning and end of each file are looked at, and what looks odd is decoded: seconds for 100,000 images. Damage in
    the middle of a file is found by `detr data check`, which decodes all.
    """
    damaged = problems_of_images(dataset, _problem_at_the_ends, progress)
    if damaged:
        more = f" and {len(damaged) - 5:,} more" if len(damaged) > 5 else ""
        raise InputError(f"{counted(len(damaged), 'image')} cannot be read: {'; '.join(damaged[:5])}{more}")


def problems_of_images(
    dataset: CocoDataset, look: Callable[[CocoDataset, int], str | None], progress: Progress | None = None
) -> tuple[str, ...]:
    """What `look` finds wrong with image after image, on all cores."""
    found = on_all_cores(lambda index: look(dataset, index), range(len(dataset)), progress, "looking at images")
    return tuple(problem for problem in found if problem)


def problem_when_decoded(dataset: CocoDataset, index: int) -> str | None:
    """What is wrong with an image: damage, or another size than the annotation file says."""
    known = dataset.annotations
    path = dataset.file(index)
    try:
        height, width = read_image(path, channels=dataset.channels).shape[:2]
    except InputError as problem:
        return str(problem)
    said = int(known.heights[index]), int(known.widths[index])
    if 0 in said or said == (height, width):
        return None
    return f"{path}: is {width} x {height} pixels, the annotation file says {said[1]} x {said[0]}"


def _problem_at_the_ends(dataset: CocoDataset, index: int) -> str | None:
    path = dataset.file(index)
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
            stream.seek(-8, os.SEEK_END)
            end = stream.read()
    except OSError:
        start = end = b""
    fits = dataset.channels in (1, 3)  # what PNG and JPEG have; whether more are there shows when decoded
    if fits and any(start.startswith(first) and end.endswith(last) for first, last in _ENDS.items()):
        return None
    try:
        read_image(path, channels=dataset.channels)
    except InputError as problem:
        return str(problem)
    return None
