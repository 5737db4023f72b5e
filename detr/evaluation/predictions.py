"""Detections of a whole data set as arrays, and COCO's results file: read and written, and checked before use."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.coco_file import no_garbage_collection
from detr.errors import InputError, listed, shortened
from detr.evaluation.json_records import records_of
from detr.files import written_aside

Id = int | str

_RECORDS_AT_ONCE = 20_000  # written together


@dataclass(frozen=True, eq=False)
class DetectionArrays:
    """What was found in a data set. `I` images, `K` detections."""

    image_ids: tuple[Id, ...]  # I, as in the data set's annotations
    image_indices: NDArray[np.int64]  # [K] into the images
    labels: NDArray[np.int64]  # [K] class indices of the data set
    boxes: NDArray[np.float64]  # [K, 4] xywh in pixels
    scores: NDArray[np.float64]  # [K]
    notes: tuple[str, ...] = ()  # what was left out on the way here

    def __len__(self) -> int:
        return len(self.scores)

    def canonical(self) -> DetectionArrays:
        """The same in the order of image ids, then falling score: two equal sets make two equal files."""
        rank = ranks_by_id(self.image_ids)
        order = np.lexsort((np.arange(len(self)), -self.scores, rank[self.image_indices]))
        return replace(
            self,
            image_indices=self.image_indices[order],
            labels=self.labels[order],
            boxes=self.boxes[order],
            scores=self.scores[order],
        )


def ranks_by_id(ids: Sequence[Id]) -> NDArray[np.int64]:
    """[N] the place of each id among all: numbers by value, then texts by character."""
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[order] = np.arange(len(ids))
    return ranks


def write_predictions(path: str | os.PathLike[str], detections: DetectionArrays, classes: Classes) -> None:
    """COCO's results file: original image and category ids, all digits, in canonical order; a whole file or none."""
    detections = detections.canonical()
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.write("[")
        for start in range(0, len(detections), _RECORDS_AT_ONCE):
            part = slice(start, start + _RECORDS_AT_ONCE)
            columns = (
                detections.image_indices[part].tolist(),
                detections.labels[part].tolist(),
                detections.boxes[part].tolist(),
                detections.scores[part].tolist(),
            )
            records = [
                {"image_id": detections.image_ids[i], "category_id": classes.ids[label], "bbox": box, "score": score}
                for i, label, box, score in zip(*columns, strict=True)
            ]
            file.write((",\n" if start else "\n") + ",\n".join(map(json.dumps, records)))
        file.write("\n]\n")


def read_predictions(
    path: str | os.PathLike[str], annotations: Annotations, *, allow_extra_images: bool = False
) -> DetectionArrays:
    """COCO's results file: a list of records, or an object with such a list under "annotations".

    A record's image is that of its `file_name`, as `detr predict --save-json` writes it, or of its `image_id`. Its
    class has the name that its `category` says, written there too, or its `category_id`.

    Categories that the data set doesn't have are left out, with a note. Images that it doesn't have are an error
    unless allowed, since the usual cause is a file of another split. UsageError where there is no such file,
    InputError naming the record for everything else that is wrong.
    """
    path = Path(path)
    reader = _Reader(path, annotations)
    with no_garbage_collection():
        parts = [reader.arrays(rows, start) for start, rows in records_of(path)]
    images, labels, boxes, scores = (np.concatenate(column) for column in zip(reader.nothing, *parts, strict=True))
    notes = []
    known = images >= 0
    if not known.all():
        notes.append(_extra_images(path, reader, known, allowed=allow_extra_images))
    unknown = labels < 0
    if unknown.any():
        some = listed([repr(id) for id in reader.unknown_categories], 3)
        kind = "names" if reader.says_names else "ids"
        what = f"{unknown.sum()} of {len(labels)} detections are of categories not in the data set ({kind} {some})"
        if unknown.all() and reader.says_names:
            raise InputError(f"{path}: {what}; it has {listed(annotations.classes.names)}")
        if unknown.all():
            hint = _of_other_kind("category_id", reader.unknown_categories, annotations.classes.ids)
            raise InputError(f"{path}: {what}{hint or '; are these class indices in place of category ids?'}")
        notes.append(f"{what}; left out")
    keep = known & ~unknown
    return DetectionArrays(
        annotations.image_ids, images[keep], labels[keep], boxes[keep], scores[keep], notes=tuple(notes)
    )


def _extra_images(path: Path, reader: _Reader, known: NDArray[np.bool_], *, allowed: bool) -> str:
    extra = len(known) - int(known.sum())
    ids = reader.unknown_images
    some = listed([repr(id) for id in ids], 3)
    what = f"{extra} of {len(known)} detections are for images not in the data set (ids {some})"
    if not allowed or not known.any():
        hint = _of_other_kind("image_id", ids, reader.annotations.image_ids)
        allow = "" if allowed else "; --allow-extra-images leaves them out"
        raise InputError(f"{path}: {what}{hint or f': is it another split?{allow}'}")
    return f"{what}; left out"


def _of_other_kind(key: str, given: Mapping[Any, None], known: Sequence[Id]) -> str:
    """A hint where the ids are right but for "1" in place of 1, or the other way round."""
    first = next(iter(given))
    if isinstance(first, str) and any(str(id) == first for id in known):
        return f": {key} is text in the results, a number in the annotations"
    if not isinstance(first, str) and str(first) in known:
        return f": {key} is a number in the results, text in the annotations"
    return ""


class _Reader:
    """Turns records into arrays, and remembers the ids that it didn't know."""

    nothing = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4)), np.empty(0))

    def __init__(self, path: Path, annotations: Annotations) -> None:
        self.path = path
        self.annotations = annotations
        self.image_index = {id: index for index, id in enumerate(annotations.image_ids)}
        names = [Path(name).name for name in annotations.file_names]
        self.index_by_name = {name: index for index, name in enumerate(names)} if len(set(names)) == len(names) else {}
        self.class_index = {id: index for index, id in enumerate(annotations.classes.ids)}
        self.unknown_images: dict[Any, None] = {}
        self.unknown_categories: dict[Any, None] = {}
        self.says_names = False

    def arrays(self, rows: list[Any], start: int) -> tuple[NDArray[Any], ...]:
        """Image indices and labels (-1: unknown), boxes [N, 4] and scores [N]; `start` counts earlier records."""
        try:
            images, categories, boxes, scores = zip(
                *((row["image_id"], row["category_id"], row["bbox"], row["score"]) for row in rows), strict=True
            )
            sound = (
                set(map(type, images)) | set(map(type, categories)) <= {int, str, float}
                and set(map(type, boxes)) == {list}
                and set(map(len, boxes)) == {4}
                and set(map(type, chain(scores, chain.from_iterable(boxes)))) <= {int, float}
            )
        except (KeyError, TypeError, IndexError):
            sound = False
        if not sound:
            self._refuse_first(rows, start)
        try:
            return (
                self._images(rows, images),
                self._categories(rows, categories),
                np.fromiter(chain.from_iterable(boxes), float, 4 * len(rows)).reshape(-1, 4),
                np.fromiter(scores, float, len(rows)),
            )
        except OverflowError:
            last = start + len(rows) - 1
            raise InputError(f"{self.path}: a number in records {start} to {last} is too large") from None

    def _images(self, rows: list[Any], ids: Sequence[Any]) -> NDArray[np.int64]:
        """By the file's name where records have one that is known here (`detr predict` guesses ids), else by id."""
        if "file_name" not in rows[0]:
            return self._indices(ids, self.image_index, self.unknown_images)
        by_name = [self.index_by_name.get(str(row.get("file_name")), -1) for row in rows]
        indices = np.array(by_name, np.int64)
        rest = np.flatnonzero(indices < 0)
        indices[rest] = self._indices([ids[n] for n in rest.tolist()], self.image_index, self.unknown_images)
        return indices

    def _categories(self, rows: list[Any], ids: Sequence[Any]) -> NDArray[np.int64]:
        """As `detr val` matches the model's classes where records have their names, else by id."""
        self.says_names = "category" in rows[0]
        if not self.says_names:
            return self._indices(ids, self.class_index, self.unknown_categories)
        said = [str(row.get("category")) for row in rows]
        names = Classes.from_names(dict.fromkeys(said))
        found = names.matches_by_name(self.annotations.classes)
        return self._indices(said, {names.names[n]: index for n, index in found.items()}, self.unknown_categories)

    @staticmethod
    def _indices(ids: Sequence[Any], index: Mapping[Id, int], unknown: dict[Any, None]) -> NDArray[np.int64]:
        indices = np.fromiter((index.get(id, -1) for id in ids), np.int64, len(ids))
        unknown.update((ids[n], None) for n in np.flatnonzero(indices < 0).tolist())
        return indices

    def _refuse_first(self, rows: list[Any], start: int) -> None:
        for number, row in enumerate(rows, start):
            problem = _problem(row)
            if problem:
                raise InputError(f"{self.path}: record {number} (counted from 0): {problem}")
        raise AssertionError("a batch was refused, but each of its records is sound")


def _problem(row: Any) -> str | None:
    """What is wrong with one record, or None."""
    if not isinstance(row, dict):
        return f"expected an object with image_id, category_id, bbox and score, found {_said(row)}"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in row]
    if missing:
        return f"{missing[0]} is missing"
    for key in ("image_id", "category_id"):
        if type(row[key]) not in (int, str, float):
            return f"{key} is {_said(row[key])}, expected a number or a text"
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4 or any(type(value) not in (int, float) for value in box):
        return f"bbox is {_said(box)}, expected 4 numbers [x, y, width, height]"
    if type(row["score"]) not in (int, float):
        return f"score is {_said(row['score'])}, expected a number"
    return None


def _said(value: Any) -> str:
    return shortened(json.dumps(value))
