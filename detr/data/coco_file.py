"""COCO's annotation file as arrays, read and validated. Neither torch nor the images are needed for that."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.coco_rows import areas_of, boxes_of, categories_of, crowd_of, indices_of, refuse_repeated, sizes_of
from detr.errors import InputError, UsageError, did_you_mean, listed

_OUTLINE = re.compile(r'"segmentation"\s*:\s*\[[\[\]\d.,\seE+-]*\]\s*,')
_MOST_FLAT = 0.05  # a larger share of boxes without an area is a mistake in the file, not a slip


def read_annotations(
    path: str | os.PathLike[str], *, classes: Classes | None = None, strict: bool = False
) -> Annotations:
    """Read and validate a COCO annotation file.

    Class indices count the categories in order of their ids, or are those of `classes` (say, a checkpoint's), matched
    by name. Boxes without width or height are dropped with a note (with `strict`, or when they are many, that is an
    error); all others stay exactly as the file has them. InputError says what is wrong, where, and how often.
    """
    path = Path(path)
    tree = _read_tree(path)
    images, rows, categories = (_list(tree, key, path) for key in ("images", "annotations", "categories"))
    notes: list[str] = []
    if not images:
        raise InputError(f"{path}: lists 0 images")
    image_ids = refuse_repeated(images, "images", path)
    own, own_names = categories_of(categories, path)
    image_indices = indices_of(rows, "image_id", image_ids, "images", path)
    category_indices = indices_of(rows, "category_id", own, "categories", path)
    refuse_repeated(rows, "annotations", path, may_lack=True)
    boxes = boxes_of(rows, path, notes)
    areas = areas_of(rows, boxes, path, notes)
    crowd = crowd_of(rows, path)
    used = np.bincount(category_indices, minlength=len(own))
    index_of, classes = _contract(own, own_names, categories, used, classes, path, notes)
    kept = _with_area(boxes, path, strict, notes)
    labels = index_of[category_indices]
    found = Annotations(
        classes=classes,
        image_ids=image_ids,
        file_names=_file_names(images, path),
        heights=sizes_of(images, "height", path),
        widths=sizes_of(images, "width", path),
        image_indices=image_indices[kept],
        labels=labels[kept],
        boxes=boxes[kept],
        areas=areas[kept],
        crowd=crowd[kept],
    )
    object.__setattr__(found, "notes", (*notes, *_remarks(found)))
    return found


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such annotation file") from None
    except OSError as problem:
        raise UsageError(f"cannot read {path}: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: not text in UTF-8 (byte {problem.start}), so not a COCO annotation file") from None
    tree = _parsed(text, path)
    if not isinstance(tree, dict):
        hint = "; a list of detections is given with --predictions" if isinstance(tree, list) else ""
        raise InputError(f"{path}: expected an object with images, annotations and categories{hint}")
    return tree


def _parsed(text: str, path: Path) -> Any:
    """Outlines are most of a large file and needed only where there is no box: five times faster without them."""
    shorter = _OUTLINE.sub("", text)
    if len(shorter) < len(text):
        try:
            tree = _loads(shorter)
        except (ValueError, RecursionError):
            tree = None  # the whole text is read again, to say where in it the mistake is
        rows = tree.get("annotations") if isinstance(tree, dict) else None
        if isinstance(rows, list) and all(isinstance(row, dict) and row.get("bbox") is not None for row in rows):
            return tree
    try:
        return _loads(text)
    except json.JSONDecodeError as problem:
        raise InputError(f"{path}:{problem.lineno}:{problem.colno}: not valid JSON: {problem.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a COCO annotation file") from None
    except ValueError as problem:
        raise InputError(f"{path}: not valid JSON: {problem}") from None


def _loads(text: str) -> Any:
    with no_garbage_collection():
        return json.loads(text)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Millions of small objects come and go, none of them in circles; looking for circles takes a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _list(tree: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    if key not in tree:
        hint = did_you_mean(key, tree) or f"; it has {', '.join(tree) or 'nothing'}"
        raise InputError(f"{path}: no {key!r} in this annotation file{hint}")
    rows = tree[key]
    if not isinstance(rows, list):
        raise InputError(f"{path}: {key!r} is {type(rows).__name__}; expected a list")
    wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise InputError(f"{path}: {key}[{wrong}] is {type(rows[wrong]).__name__}; expected an object")
    return rows


def _file_names(images: list[dict[str, Any]], path: Path) -> tuple[str, ...]:
    for position, row in enumerate(images):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: images[{position}] has file_name {name!r}; expected the name of a file")
    return tuple(row["file_name"] for row in images)


def _with_area(boxes: NDArray[np.float64], path: Path, strict: bool, notes: list[str]) -> NDArray[np.bool_]:
    kept = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    dropped = np.flatnonzero(~kept)
    if len(dropped):
        x, y, w, h = boxes[dropped[0]].tolist()
        what = f"{len(dropped):,} of {len(boxes):,} boxes have no width or height; first: annotations[{dropped[0]}]"
        what += f" [{x:g}, {y:g}, {w:g}, {h:g}]"
        if strict or len(dropped) > _MOST_FLAT * len(boxes):
            raise InputError(f"{path}: {what} (expected x, y, width, height)")
        notes.append(f"{what}; left out")
    return kept


def _contract(
    ids: tuple[int | str, ...],
    names: tuple[str, ...],
    rows: Sequence[dict[str, Any]],
    used: NDArray[np.int64],
    classes: Classes | None,
    path: Path,
    notes: list[str],
) -> tuple[NDArray[np.int64], Classes]:
    """[categories in file order] class indices (-1: not a class), and the classes."""
    if classes is not None:
        return _matched(ids, names, used, classes, path)
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    heading = _heading(names, rows, used)
    if heading is not None:
        order.remove(heading)
        notes.append(f"category {ids[heading]!r} {names[heading]!r} has no boxes and only heads the others; left out")
    index_of = np.full(len(ids), -1)
    index_of[order] = np.arange(len(order))
    return index_of, Classes(tuple(ids[i] for i in order), tuple(names[i] for i in order))


def _heading(names: tuple[str, ...], rows: Sequence[dict[str, Any]], used: NDArray[np.int64]) -> int | None:
    """Roboflow lists the name of the whole project as a category, of which all others are kinds."""
    above = {row["supercategory"] for row in rows if isinstance(row.get("supercategory"), str)} - {"none", ""}
    if len(above) == 1 and len(rows) > 1:
        name = above.pop()
        if name in names:
            index = names.index(name)
            others = [row for i, row in enumerate(rows) if i != index]
            if not used[index] and all(row.get("supercategory") == name for row in others):
                return index
    return None


def _matched(
    ids: tuple[int | str, ...], names: tuple[str, ...], used: NDArray[np.int64], classes: Classes, path: Path
) -> tuple[NDArray[np.int64], Classes]:
    """The indices of `classes` by name. The ids become those of this file, for results are written in its terms."""
    exact = {name: index for index, name in enumerate(classes.names)}
    plain = Classes(ids, names).matches_by_name(classes)
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
        lines.append(f"{twice:,} images have the file name of another one")
    empty = [found.classes.names[i] for i in np.flatnonzero(counts == 0)]
    if empty and counts.any():
        lines.append(f"{len(empty)} of {len(found.classes)} classes have no boxes: {listed(empty)}")
    return lines
