"""YOLO's label files as arrays: a row for each box, `class cx cy w h` or a polygon, in shares of the image."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.settling import settled
from detr.data.threads import on_all_cores
from detr.errors import InputError, UsageError, counted, listed, shortened
from detr.files import read_text
from detr.image_file import IMAGE_SUFFIXES, read_size

_OVER = 0.01  # by so much a value may lie outside of the image; the box is clipped as any other
_MOST_TOLD = 3  # of the rows that are wrong

Box = tuple[float, float, float, float]


@dataclass(eq=False)
class _Labels:
    """What an image's label file says; boxes are x, y, w, h in shares of the image."""

    file: Path
    size: tuple[int, int]  # (height, width), 0 where the image can't be read
    is_there: bool = True
    boxes: list[Box] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # of each box in the file, from 1
    polygons: int = 0
    wrong: list[str] = field(default_factory=list)


def read_labels(
    yaml: Path,
    *,
    root: Path,
    images: Path,
    listed: Sequence[Path],
    names: Classes,
    columns: int | None = None,
    classes: Classes | None = None,
    strict: bool = False,
) -> Annotations:
    """The boxes of the images that the folders and lists of `listed` have, in pixels.

    `columns` is the only allowed number of values in a row, of which the first five count; by default rows have five,
    or a class and the points of a polygon, of which the box around it is taken. An image without a label file has
    nothing on it, but one image at least must have one. InputError for rows that are wrong, with file and line.
    """
    paths = _image_paths(listed, root)
    if not paths:
        raise InputError(f"{yaml}: no images in {', '.join(map(str, listed))}")
    folders = {folder: label_folder(folder, root) for folder in {path.parent for path in paths}}
    index_of = {str(id): index for index, id in enumerate(names.ids)}
    read = on_all_cores(lambda path: _read(path, folders[path.parent], index_of, columns), paths)
    _require_sense(yaml, read)
    counts = [len(labels.boxes) for labels in read]
    scale = np.array([labels.size[::-1] * 2 for labels in read], np.float64).repeat(counts, axis=0)
    boxes = np.array([box for labels in read for box in labels.boxes], np.float64).reshape(-1, 4) * scale
    file_names = tuple(path.relative_to(images).as_posix() for path in paths)
    found = Annotations(
        classes=names,
        image_ids=file_names,
        file_names=file_names,
        heights=np.array([labels.size[0] for labels in read], np.int64),
        widths=np.array([labels.size[1] for labels in read], np.int64),
        image_indices=np.arange(len(read)).repeat(counts),
        labels=np.array([label for labels in read for label in labels.labels], np.int64),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(len(boxes), bool),
        notes=tuple(_notes(read)),
    )
    places = [(labels.file, line) for labels in read for line in labels.lines]
    return settled(found, yaml, lambda i: f"{places[i][0]}:{places[i][1]}", classes=classes, strict=strict)


def label_folder(folder: Path, root: Path) -> Path:
    """Where the label files of a folder's images are: the last `images` of its path below `root` becomes `labels`.

    Where there is no such folder, they are beside the images.
    """
    parts = list(folder.relative_to(root).parts)
    if "images" not in parts:
        return folder
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    found = root.joinpath(*parts)
    return found if found.is_dir() else folder


def _image_paths(places: Sequence[Path], root: Path) -> list[Path]:
    paths: dict[Path, Path] = {}
    for place in places:
        for path in _in_folder(place) if place.is_dir() else _in_list(place, root):
            if path in paths:
                raise InputError(f"{place}: {path} is listed twice, first in {paths[path]}")
            paths[path] = place
    return list(paths)


def _in_folder(folder: Path) -> Iterator[Path]:
    """Its images and those of the folders in it, in the order of their names, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


def _in_list(file: Path, root: Path) -> Iterator[Path]:
    """The images of a list, each path from the folder of the data set on, or from that of the list."""
    for number, line in enumerate(read_text(file).splitlines(), 1):
        name = line.strip().replace("\\", "/")
        if not name:
            continue
        places = [Path(os.path.normpath(folder / name)) for folder in (root, file.parent)]
        found = next((place for place in places if "\0" not in name and place.is_file()), None)
        if found is None:
            raise InputError(f"{file}:{number}: {shortened(name)}: no such image, looked for {places[0]}")
        base = Path(os.path.normpath(root))
        if not found.is_relative_to(base):
            raise InputError(f"{file}:{number}: {shortened(name)} is outside of the data set {root}")
        yield root / found.relative_to(base)


def _read(image: Path, folder: Path, index_of: dict[str, int], columns: int | None) -> _Labels:
    try:
        size = read_size(image)
    except InputError:  # whoever needs the pixels will say what is wrong with them
        size = (0, 0)
    labels = _Labels(folder / f"{image.stem}.txt", size)
    try:
        text = read_text(labels.file)
    except UsageError:
        labels.is_there = False
        return labels
    except InputError as problem:
        labels.wrong.append(str(problem))
        return labels
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.split():
            try:
                _take(labels, words, number, index_of, columns)
            except InputError as problem:
                labels.wrong.append(f"{labels.file}:{number}: {problem}")
    return labels


def _take(labels: _Labels, words: list[str], number: int, index_of: dict[str, int], columns: int | None) -> None:
    """A row into `labels`; InputError says what is wrong with it."""
    if columns is not None and len(words) != columns:
        raise InputError(f"{counted(len(words), 'column')}; expected {columns}: class, cx, cy, w, h and the key points")
    is_polygon = columns is None and len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and columns is None and not is_polygon:
        hint = "; is the last a score? `detr predict --save-txt` without --save-conf leaves it out"
        raise InputError(
            f"{counted(len(words), 'column')}; expected class, cx, cy, w, h, or a class and the points of a polygon"
            f"{hint if len(words) == 6 else ''}"
        )
    label = _class_of(words[0], index_of)
    values = [_share(word) for word in (words[1:] if is_polygon else words[1:5])]
    if is_polygon:
        left, top = min(values[0::2]), min(values[1::2])
        box = (left, top, max(values[0::2]) - left, max(values[1::2]) - top)
    else:
        cx, cy, width, height = values
        box = (cx - width / 2, cy - height / 2, width, height)
    if 0 in labels.size:
        return
    labels.polygons += is_polygon
    labels.labels.append(label)
    labels.boxes.append(box)
    labels.lines.append(number)


def _class_of(word: str, index_of: dict[str, int]) -> int:
    if word not in index_of:
        value = _number(word)
        word = str(int(value)) if value.is_integer() else word  # 3.0, as some programs write it
    if word not in index_of:
        raise InputError(f"class {shortened(word)} is none of the {len(index_of)} in names ({listed(list(index_of))})")
    return index_of[word]


def _share(word: str) -> float:
    value = _number(word)
    if not -_OVER <= value <= 1 + _OVER:
        hint = "; pixels?" if value > 2 else ""
        raise InputError(f"{shortened(word)} is outside of the image; expected shares of it, from 0 to 1{hint}")
    return value


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{shortened(word)!r} is not a number")
    return value


def _require_sense(yaml: Path, read: Sequence[_Labels]) -> None:
    wrong = [line for labels in read for line in labels.wrong]
    if wrong:
        number = counted(len(wrong), "label row is", "label rows are")
        raise InputError(f"{yaml}: {number} wrong: {'; '.join(wrong[:_MOST_TOLD])}")
    if not any(labels.is_there for labels in read):
        raise UsageError(
            f"{yaml}: none of {counted(len(read), 'image')} has a label file; looked for {read[0].file} first, "
            "as labels are in labels/ where images are in images/, or beside them"
        )


def _notes(read: Sequence[_Labels]) -> Iterator[str]:
    lacking = sum(not labels.is_there for labels in read)
    if lacking:
        yield f"{lacking:,} of {len(read):,} images have no label file: nothing is on them"
    unread = sum(0 in labels.size for labels in read)
    if unread:
        yield f"{counted(unread, 'image')} cannot be read; the boxes are left out"
    polygons = sum(labels.polygons for labels in read)
    if polygons:
        yield f"{counted(polygons, 'row is a polygon', 'rows are polygons')}; the box around each is taken"
