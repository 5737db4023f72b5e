"""The formats that data sets can be written in."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from detr.archives import StoredFile
from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.errors import InputError
from detr.files import write_text

_UNWRITABLE = ("Cc", "Cs", "Cn")  # kinds of characters: control, halves of surrogate pairs, none at all


@dataclass(frozen=True, eq=False)
class Part:
    """A split to be written; its file names are the new ones, below the format's folder."""

    split: str
    annotations: Annotations
    sources: tuple[StoredFile, ...]  # the image files


@dataclass(frozen=True)
class Format:
    """How a data set is written: everything but the images themselves."""

    folder: str  # of the images, with {split}
    write: Callable[[Path, Sequence[Part], Classes], None]
    says_all: bool = False  # boxes over the edge, crowds, and images told by their whole path
    has_crowds: bool = False


def write_coco(folder: Path, parts: Sequence[Part], classes: Classes) -> None:
    """`annotations/instances_SPLIT.json` for each split, with the original category ids."""
    for part in parts:
        tree = coco_tree(part.annotations, classes)
        text = json.dumps(tree, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        write_text(folder / "annotations" / f"instances_{part.split}.json", text + "\n")


def coco_tree(known: Annotations, classes: Classes) -> dict[str, Any]:
    """COCO's rows. Images keep their ids if these are numbers, as other programs expect; else they are counted."""
    ids = known.image_ids if all(isinstance(id, int) for id in known.image_ids) else range(1, len(known.image_ids) + 1)
    rows = zip(ids, known.file_names, known.widths.tolist(), known.heights.tolist(), strict=True)
    columns = (known.image_indices, known.labels, known.boxes, known.areas, known.crowd)
    annotations = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "images": [{"id": id, "file_name": name, "width": w, "height": h} for id, name, w, h in rows],
        "annotations": [
            {
                "id": number,
                "image_id": ids[image],
                "category_id": classes.ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            for number, (image, label, box, area, crowd) in enumerate(annotations, 1)
        ],
        "categories": classes.to_json(),
    }


def write_yolo(folder: Path, parts: Sequence[Part], classes: Classes) -> None:
    """`data.yaml`, and `labels/SPLIT/NAME.txt` for each image, also where nothing is on it."""
    for part in parts:
        known = part.annotations
        for name, rows, (height, width) in _by_image(known):
            boxes = known.boxes[rows] / (width, height, width, height)
            centres = boxes[:, :2] + boxes[:, 2:] / 2
            values = np.concatenate([centres, boxes[:, 2:]], 1).tolist()
            lines = [
                " ".join([str(label), *(f"{value:.12g}" for value in row)])
                for label, row in zip(known.labels[rows].tolist(), values, strict=True)
            ]
            _write(folder / "labels" / part.split / f"{Path(name).stem}.txt", "".join(f"{line}\n" for line in lines))
    splits = "".join(f"{part.split}: images/{part.split}\n" for part in parts)
    names = "".join(f"  {index}: {_quoted(name)}\n" for index, name in enumerate(classes.names))
    write_text(folder / "data.yaml", f"{splits}nc: {len(classes)}\nnames:\n{names}")


def write_voc(folder: Path, parts: Sequence[Part], classes: Classes) -> None:
    """`Annotations/NAME.xml`, `ImageSets/Main/SPLIT.txt`, and the names in their order in `labels.txt`."""
    for name in classes.names:
        if name != name.strip() or any(unicodedata.category(each) in _UNWRITABLE for each in name):
            raise InputError(f"class name {name!r} can't be kept in XML: it has control characters or blanks around it")
    for part in parts:
        known = part.annotations
        for name, rows, size in _by_image(known):
            root = _xml(name, size)
            for label, box, crowd in zip(known.labels[rows], known.boxes[rows], known.crowd[rows], strict=True):
                root.append(_object(classes.names[label], box.tolist(), bool(crowd)))
            ElementTree.indent(root)
            text = ElementTree.tostring(root, encoding="unicode")
            _write(folder / "Annotations" / f"{Path(name).stem}.xml", text + "\n")
        stems = "".join(f"{Path(name).stem}\n" for name in known.file_names)
        write_text(folder / "ImageSets" / "Main" / f"{part.split}.txt", stems)
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in classes.names))


FORMATS = {
    "coco": Format("images/{split}", write_coco, says_all=True, has_crowds=True),
    "yolo": Format("images/{split}", write_yolo),
    "voc": Format("JPEGImages", write_voc, has_crowds=True),
}


def pixels_of(box: Sequence[float]) -> tuple[float, ...]:
    """xywh -> VOC's xmin, ymin, xmax, ymax: whole pixels counted from 1, both ends included.

    Where no whole pixel would be left, the numbers have decimals.
    """
    left, top, width, height = box
    edges = left, top, left + width, top + height
    whole = tuple(round(edge) for edge in edges)
    left, top, right, bottom = whole if whole[0] < whole[2] and whole[1] < whole[3] else edges
    return left + 1, top + 1, right, bottom


def _by_image(known: Annotations) -> Iterator[tuple[str, Any, tuple[int, int]]]:
    """Name, rows and (height, width) of image after image."""
    order = np.argsort(known.image_indices, kind="stable")
    starts = np.searchsorted(known.image_indices[order], np.arange(len(known.image_ids) + 1))
    for index, name in enumerate(known.file_names):
        rows = order[starts[index] : starts[index + 1]]
        yield name, rows, (int(known.heights[index]), int(known.widths[index]))


def _xml(name: str, size: tuple[int, int]) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "JPEGImages"
    ElementTree.SubElement(root, "filename").text = name
    sides = ElementTree.SubElement(root, "size")
    for tag, value in (("width", size[1]), ("height", size[0]), ("depth", 3)):
        ElementTree.SubElement(sides, tag).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "0"
    return root


def _object(name: str, box: Sequence[float], crowd: bool) -> ElementTree.Element:
    thing = ElementTree.Element("object")
    for tag, text in (("name", name), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", str(int(crowd)))):
        ElementTree.SubElement(thing, tag).text = text
    around = ElementTree.SubElement(thing, "bndbox")
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), pixels_of(box), strict=True):
        ElementTree.SubElement(around, tag).text = f"{value:.10g}"
    return thing


def _quoted(name: str) -> str:
    """In YAML's double quotes, in which a name is never read as a number, and can hold anything."""
    plain = name.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in plain) + '"'


def _write(path: Path, text: str) -> None:
    """The folder above is written aside as a whole, so that its many small files need not be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
