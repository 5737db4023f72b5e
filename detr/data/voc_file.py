"""Pascal VOC's XML files as arrays.

Pixels are counted from 1 and both ends of a box belong to it, so that the box around the pixels xmin to xmax reaches
from xmin - 1 to xmax. An object marked `difficult` becomes a crowd: training leaves it out, and in evaluation it is
neither missed nor wrong to find, which is what VOC's own evaluation does with it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

import numpy as np

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.folders import inside
from detr.data.settling import settled
from detr.data.threads import on_all_cores
from detr.errors import InputError, counted, did_you_mean, listed, shortened
from detr.image_file import IMAGE_SUFFIXES, read_size

_LARGEST = 20_000_000  # bytes of an XML file
_EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class VocFile:
    """What an XML file says of its image."""

    path: Path
    file_name: str  # empty where it doesn't say
    size: tuple[int, int]  # (height, width), 0 where it doesn't say
    names: tuple[str, ...]  # of the object at each box
    boxes: tuple[tuple[float, float, float, float], ...]  # xywh in pixels, counted from 0
    difficult: tuple[bool, ...]


def read_xml_files(
    folder: Path,
    *,
    images: Path,
    stems: Sequence[str] | None = None,
    beside: Sequence[Path] = (),
    names: Classes | None = None,
    classes: Classes | None = None,
    strict: bool = False,
) -> Annotations:
    """The boxes of a folder's XML files: of all, or of those that `stems` names.

    Without `names` the classes are the names of all objects in `beside` (and here), in the order of the alphabet, so
    that all splits have the same ones. Sizes that a file lacks are read from its image.
    """
    chosen = _all_in(folder) if stems is None else [folder / f"{stem}.xml" for stem in stems]
    if len(set(chosen)) < len(chosen):
        raise InputError(f"{folder}: an image is listed more than once")
    files = on_all_cores(read_xml, chosen)
    own = names or _alphabetical(files, beside if classes is None else ())
    file_names = _image_names(files, images)
    sizes = on_all_cores(lambda pair: _size(pair[0], images / pair[1]), list(zip(files, file_names, strict=True)))
    counts = [len(file.boxes) for file in files]
    boxes = np.array([box for file in files for box in file.boxes], np.float64).reshape(-1, 4)
    crowd = np.array([value for file in files for value in file.difficult], bool)
    found = Annotations(
        classes=own,
        image_ids=tuple(file.path.stem for file in files),
        file_names=tuple(file_names),
        heights=np.array([height for height, _ in sizes], np.int64),
        widths=np.array([width for _, width in sizes], np.int64),
        image_indices=np.arange(len(files)).repeat(counts),
        labels=np.array(list(_labels(files, own)), np.int64),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=crowd,
        notes=tuple(_notes(files, file_names, images, stems is None)),
    )
    places = [f"{file.path}: object {number}" for file in files for number in range(1, len(file.boxes) + 1)]
    return settled(found, folder, lambda i: places[i], classes=classes, strict=strict)


def read_xml(path: Path) -> VocFile:
    """One XML file; InputError says what is wrong, and where. A DOCTYPE, whose entities can grow, is refused."""
    root = _tree(path)
    names, boxes, difficult = [], [], []
    for number, each in enumerate(root.findall("object"), 1):
        name = (each.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{path}: object {number} has no name")
        around = each.find("bndbox")
        if around is None:
            raise InputError(f"{path}: object {number} ({name!r}) has no bndbox")
        xmin, ymin, xmax, ymax = (_number(around, edge, f"{path}: object {number} ({name!r})") for edge in _EDGES)
        names.append(name)
        boxes.append((xmin - 1, ymin - 1, xmax - (xmin - 1), ymax - (ymin - 1)))
        difficult.append((each.findtext("difficult") or "0").strip() == "1")
    size = root.find("size")
    sides = (0, 0)
    if size is not None:
        sides = (_side(size, "height", path), _side(size, "width", path))
    file_name = (root.findtext("filename") or "").strip()
    return VocFile(path, file_name, (0, 0) if 0 in sides else sides, tuple(names), tuple(boxes), tuple(difficult))


class _WithoutDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, public: str | None, system: str | None) -> NoReturn:
        raise InputError("has a DOCTYPE, which no annotation needs and which can hide traps")


def _tree(path: Path) -> ElementTree.Element:
    try:
        data = path.read_bytes()
        if len(data) > _LARGEST:
            raise InputError(f"larger than an annotation can be ({_LARGEST:,} bytes)")
        root = ElementTree.XML(data, ElementTree.XMLParser(target=_WithoutDoctype()))
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}") from None
    except ElementTree.ParseError as problem:
        line, column = problem.position
        raise InputError(f"{path}:{line}:{column + 1}: not valid XML: {problem.msg}") from None
    except (ValueError, LookupError) as problem:  # an encoding that isn't known
        raise InputError(f"{path}: not valid XML: {problem}") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: expected <annotation>, found <{shortened(root.tag)}>")
    return root


def _number(parent: ElementTree.Element, tag: str, place: str) -> float:
    text = (parent.findtext(tag) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{place} has {tag} {shortened(text)!r}; expected a number")
    return value


def _side(size: ElementTree.Element, tag: str, path: Path) -> int:
    value = _number(size, tag, f"{path}: size") if (size.findtext(tag) or "").strip() else 0.0
    if not 0 <= value <= 2**31 or value != int(value):
        raise InputError(f"{path}: size has {tag} {value:g}; expected a whole number of pixels")
    return int(value)


def _all_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.xml") if not path.name.startswith("."))


def _alphabetical(files: Sequence[VocFile], beside: Sequence[Path]) -> Classes:
    known = {file.path for file in files}
    others = [path for folder in beside for path in _all_in(folder) if path not in known]
    names = {name for file in (*files, *on_all_cores(read_xml, others)) for name in file.names}
    if not names:
        raise InputError(f"{files[0].path.parent if files else 'no XML files'}: no object in any XML file")
    return Classes.from_names(sorted(names))


def _labels(files: Sequence[VocFile], known: Classes) -> Iterator[int]:
    index_of = {name: index for index, name in enumerate(known.names)}
    for file in files:
        for number, name in enumerate(file.names, 1):
            if name not in index_of:
                raise InputError(
                    f"{file.path}: object {number} is {name!r}, none of the {len(known)} classes "
                    f"({listed(known.names)}){did_you_mean(name, known.names)}"
                )
            yield index_of[name]


def _image_names(files: Sequence[VocFile], folder: Path) -> list[str]:
    """Each file's image: the one that is called as the XML file is, else the one that it names."""
    there: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES:
            there.setdefault(stem, []).append(name)
    found = []
    for file in files:
        same = there.get(file.path.stem, [])
        if len(same) > 1 and file.file_name not in same:
            raise InputError(f"{file.path}: its image could be {' or '.join(same[:3])}; its filename says none of them")
        said = str(inside(file.file_name)) if file.file_name else f"{file.path.stem}.jpg"
        found.append(said if len(same) != 1 else same[0])
    return found


def _size(file: VocFile, image: Path) -> tuple[int, int]:
    if 0 not in file.size or not image.is_file():
        return file.size
    try:
        return read_size(image)
    except InputError:  # whoever needs the pixels will say what is wrong with them
        return file.size


def _notes(files: Sequence[VocFile], file_names: Sequence[str], images: Path, is_all: bool) -> Iterator[str]:
    difficult = sum(sum(file.difficult) for file in files)
    if difficult:
        yield (
            f"{counted(difficult, 'object is', 'objects are')} marked difficult: left out of training, "
            "neither missed nor wrong in evaluation"
        )
    if is_all:
        there = {name for name in os.listdir(images) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES}
        alone = len(there - set(file_names))
        if alone:
            yield f"{counted(alone, 'image')} without an XML file left out"
