"""Columns out of the rows of a COCO file, each checked; errors give the position, the value and how often.

The straight way is fast (a list comprehension per column); only when it stumbles are rows looked at one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.data.outlines import box_of_outline
from detr.errors import InputError, counted, shortened

Row = dict[str, Any]
Id = int | str


def refuse_repeated(rows: Sequence[Row], what: str, path: Path, *, may_lack: bool = False) -> tuple[Id, ...]:
    """The ids of all rows, whole numbers or text; without those that lack one if they may."""
    ids: list[Any] = [row.get("id") for row in rows]
    if not set(map(type, ids)) <= {int, str}:
        ids = [_id(id, f"{what}[{position}]", path, may_lack) for position, id in enumerate(ids)]
        if may_lack:
            ids = [id for id in ids if id is not None]
    if len(set(ids)) < len(ids):
        first: dict[Any, int] = {}
        repeated = []
        for position, row in enumerate(rows):
            id = row.get("id")
            if id in first and id is not None:
                repeated.append(f"id {id!r} at {what}[{first[id]}] and [{position}]")
            first.setdefault(id, position)
        who = f"{counted(len(repeated), 'row')} of {what} {'repeats' if len(repeated) == 1 else 'repeat'} an id"
        raise InputError(f"{path}: {who}; first: {'; '.join(repeated[:3])}")
    return tuple(ids)


def categories_of(rows: Sequence[Row], path: Path) -> tuple[tuple[Id, ...], tuple[str, ...]]:
    """Ids and names, in file order."""
    if not rows:
        raise InputError(f"{path}: lists 0 categories")
    ids = refuse_repeated(rows, "categories", path)
    first: dict[str, int] = {}
    for position, row in enumerate(rows):
        name = row.get("name")
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{path}: categories[{position}] has name {name!r}; expected text")
        if name in first:
            raise InputError(f"{path}: categories[{first[name]}] and [{position}] have one name, {name!r}")
        first[name] = position
    return ids, tuple(first)


def indices_of(rows: Sequence[Row], key: str, known: Sequence[Id], what: str, path: Path) -> NDArray[np.int64]:
    """[A] the position in `known` of each row's `key`."""
    position_of: dict[Any, int] = {id: position for position, id in enumerate(known)}
    values = [row.get(key) for row in rows]
    if {bool, list, dict} & set(map(type, values)):  # which no id can be; true would be taken for 1
        values = [_id(value, f"annotations[{position}]", path) for position, value in enumerate(values)]
    found = np.fromiter((position_of.get(value, -1) for value in values), np.int64, len(rows))
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        samples = ", ".join(f"annotations[{i}] has {rows[i].get(key)!r}" for i in unknown[:3])
        raise InputError(
            f"{path}: the {key} of {counted(len(unknown), 'annotation')} is none of the {len(known):,} {what}; "
            f"{samples}{_other_kind(rows[unknown[0]].get(key), known)}"
        )
    return found


def boxes_of(
    rows: Sequence[Row], heights: NDArray[np.int64], widths: NDArray[np.int64], path: Path, notes: list[str]
) -> NDArray[np.float64]:
    """[A, 4] xywh of four finite numbers; where there is only an outline, the box around it, in the image of [A] sizes
    (0: not known)."""
    given: list[Any] = [row.get("bbox") for row in rows]
    outlined = [position for position, box in enumerate(given) if box is None and rows[position].get("segmentation")]
    for position in outlined:
        place, size = f"{path}: annotations[{position}]", (int(heights[position]), int(widths[position]))
        given[position] = box_of_outline(rows[position]["segmentation"], place, *size)
    if outlined:
        notes.append(
            f"{counted(len(outlined), 'annotation has', 'annotations have')} an outline but no box; "
            "the box around it is taken"
        )
    if not given:
        return np.zeros((0, 4))
    try:
        boxes = np.array(given)
    except (ValueError, OverflowError):  # rows of unequal length
        boxes = np.zeros(0)
    is_plain = boxes.shape == (len(rows), 4) and boxes.dtype.kind in "iuf" and np.isfinite(boxes).all()
    if is_plain and bool not in set(map(type, chain.from_iterable(given))):  # NumPy takes true for 1
        return boxes.astype(np.float64)
    wrong = [position for position, box in enumerate(given) if not _is_box(box)]
    if wrong:
        position = wrong[0]
        raise InputError(
            f"{path}: {counted(len(wrong), 'annotation has', 'annotations have')} no bbox of four finite numbers; "
            f"first: annotations[{position}]"
            f" (id {rows[position].get('id')!r}) has {_short(given[position])}"
        )
    return np.array([[float(value) for value in box] for box in given])


def areas_of(rows: Sequence[Row], boxes: NDArray[np.float64], path: Path, notes: list[str]) -> NDArray[np.float64]:
    """[A] the file's area, or w * h where it has none."""
    given: list[Any] = [row.get("area") for row in rows]
    missing = np.array([area is None for area in given], bool)
    if missing.any():
        notes.append(
            f"{counted(int(missing.sum()), 'annotation has', 'annotations have')} no area; width times height is taken"
        )
        around = boxes[:, 2] * boxes[:, 3]
        given = [float(around[i]) if area is None else area for i, area in enumerate(given)]
    areas = np.array(given) if len(set(map(type, given)) - {int, float}) == 0 else np.zeros(0)
    if areas.dtype.kind in "iuf" and len(areas) == len(rows) and np.isfinite(areas).all() and (areas >= 0).all():
        return areas.astype(np.float64)
    for position, area in enumerate(given):
        if not _is_number(area) or not math.isfinite(area) or (area < 0 and not missing[position]):
            raise InputError(f"{path}: annotations[{position}] has area {_short(area)}; expected a number, 0 or more")
    return np.array(given, np.float64)


def crowd_of(rows: Sequence[Row], path: Path) -> NDArray[np.bool_]:
    """[A] whether the row marks a group; a row that doesn't say is none."""
    given = [row.get("iscrowd", 0) or 0 for row in rows]
    try:
        odd = set(given) - {0, 1}
    except TypeError:
        odd = {""}
    if odd:
        position = next(i for i, value in enumerate(given) if value not in (0, 1))
        raise InputError(f"{path}: annotations[{position}] has iscrowd {_short(given[position])}; expected 0 or 1")
    return np.array(given, bool)


def sizes_of(rows: Sequence[Row], key: str, path: Path) -> NDArray[np.int64]:
    """[I] the images' `height` or `width`, 0 where the file doesn't say."""
    for position, row in enumerate(rows):
        value = row.get(key)
        if value is not None and (not _is_number(value) or not 0 <= value <= 2**31 or value != int(value)):
            raise InputError(f"{path}: images[{position}] has {key} {_short(value)}; expected a whole number of pixels")
    return np.array([int(row.get(key) or 0) for row in rows], np.int64)


def _id(value: Any, place: str, path: Path, may_lack: bool = False) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if (may_lack and value is None) or (isinstance(value, (int, str)) and not isinstance(value, bool)):
        return value
    raise InputError(f"{path}: {place} has id {_short(value)}; expected a whole number or text")


def _other_kind(value: Any, known: Sequence[Id]) -> str:
    """The hint for `"7"` where ids are numbers, or 7 where they are text."""
    if isinstance(value, str) and value.lstrip("-").isdecimal() and int(value) in known:
        return " (text, where the ids are numbers)"
    if isinstance(value, int) and str(value) in known:
        return " (a number, where the ids are text)"
    return ""


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(_is_number(v) and math.isfinite(v) for v in box)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**1000  # what a float can hold


def _short(value: Any) -> str:
    return shortened(repr(value))
