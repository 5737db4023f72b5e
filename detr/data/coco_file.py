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
from detr.data.label_studio import names_below
from detr.data.settling import settled
from detr.errors import InputError, did_you_mean
from detr.files import json_mistakes_of, read_text

_OUTLINE = re.compile(r'"segmentation"\s*:\s*\[[\[\]\d.,\seE+-]*\]\s*,')


def read_annotations(
    path: str | os.PathLike[str],
    *,
    images: Path | None = None,
    classes: Classes | None = None,
    strict: bool = False,
) -> Annotations:
    """Read and validate a COCO annotation file; the image folder `images` is for names that may mean several files.

    Class indices count the categories in order of their ids, or are those of `classes` (say, a checkpoint's), matched
    by name. Boxes without width or height are dropped with a note (with `strict`, or when they are many, that is an
    error); all others stay exactly as the file has them. InputError says what is wrong, where, and how often.
    """
    path = Path(path)
    tree = _read_tree(path)
    pictures, rows, categories = (_list(tree, key, path) for key in ("images", "annotations", "categories"))
    notes: list[str] = []
    if not pictures:
        raise InputError(f"{path}: lists 0 images")
    image_ids = refuse_repeated(pictures, "images", path)
    own, own_names = categories_of(categories, path)
    image_indices = indices_of(rows, "image_id", image_ids, "images", path)
    category_indices = indices_of(rows, "category_id", own, "categories", path)
    refuse_repeated(rows, "annotations", path, may_lack=True)
    heights, widths = sizes_of(pictures, "height", path), sizes_of(pictures, "width", path)
    boxes = boxes_of(rows, heights[image_indices], widths[image_indices], path, notes)
    areas = areas_of(rows, boxes, path, notes)
    crowd = crowd_of(rows, path)
    used = np.bincount(category_indices, minlength=len(own))
    index_of, own_classes = _in_order(own, own_names, categories, used, classes is None, notes)
    read = Annotations(
        classes=own_classes,
        image_ids=image_ids,
        file_names=names_below(images, _file_names(pictures, path)),
        heights=heights,
        widths=widths,
        image_indices=image_indices,
        labels=index_of[category_indices],
        boxes=boxes,
        areas=areas,
        crowd=crowd,
        notes=tuple(notes),
    )
    return settled(read, path, lambda i: f"annotations[{i}]", classes=classes, strict=strict)


def _read_tree(path: Path) -> dict[str, Any]:
    tree = _parsed(read_text(path), path)
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
    with json_mistakes_of(path):
        return _loads(text)


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


def _in_order(
    ids: tuple[int | str, ...],
    names: tuple[str, ...],
    rows: Sequence[dict[str, Any]],
    used: NDArray[np.int64],
    without_heading: bool,
    notes: list[str],
) -> tuple[NDArray[np.int64], Classes]:
    """[categories in file order] class indices (-1: not a class), and the classes."""
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    heading = _heading(names, rows, used) if without_heading else None
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
