"""The box around an outline of a COCO file: polygons, or a mask in run lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from detr.errors import InputError


def box_of_outline(outline: Any, place: str, height: int = 0, width: int = 0) -> list[float]:
    """xywh around polygons `[[x, y, x, y, ...], ...]` or run lengths `{"size": [h, w], "counts": ...}`.

    InputError, beginning with `place`, for anything else, and for a mask of another size than its image, where that is
    known (not 0): the box would lie elsewhere.
    """
    if isinstance(outline, dict):
        box, size = _around_runs(outline, place), outline["size"]
        if size[0] != (height or size[0]) or size[1] != (width or size[1]):
            raise InputError(f"{place} has no bbox, and a mask of {size} where its image has {[height, width]}")
        return box
    if isinstance(outline, list) and outline and all(map(_is_polygon, outline)):
        numbers = [value for polygon in outline for value in polygon]
        left, top = min(numbers[0::2]), min(numbers[1::2])
        return [left, top, max(numbers[0::2]) - left, max(numbers[1::2]) - top]
    raise InputError(f"{place} has no bbox, and its segmentation is neither polygons nor run lengths")


def _is_polygon(points: Any) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in points)
    )


def _around_runs(outline: dict[str, Any], place: str) -> list[float]:
    size: Any = outline.get("size")
    counts: Any = outline.get("counts")
    if isinstance(counts, str):
        counts = _decoded(counts)
    whole = isinstance(counts, list) and all(isinstance(v, int) and 0 <= v <= 2**31 for v in counts)
    sized = isinstance(size, list) and len(size) == 2 and all(isinstance(v, int) and 0 < v <= 2**20 for v in size)
    if not whole or not sized or sum(counts) != size[0] * size[1]:
        raise InputError(f"{place} has no bbox, and the run lengths of its segmentation don't fill its size {size}")
    ends = np.cumsum(np.array(counts, np.int64))
    starts, ends = ends[0::2][: len(ends[1::2])], ends[1::2] - 1  # of the runs inside; the mask is read in columns
    starts, ends = starts[ends >= starts], ends[ends >= starts]
    if not len(starts):
        return [0.0, 0.0, 0.0, 0.0]
    height = size[0]
    left, right = int(starts[0] // height), int(ends[-1] // height)
    over = starts // height != ends // height  # a run that goes on in the next column touches bottom and top
    top = 0 if over.any() else int((starts % height).min())
    bottom = height - 1 if over.any() else int((ends % height).max())
    return [float(left), float(top), float(right - left + 1), float(bottom - top + 1)]


def _decoded(text: str) -> list[int] | None:
    """COCO's compressed counts: base 32 with a sign, from the third on as differences to the one before last."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64 or shift > 40:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return None if shift else counts
