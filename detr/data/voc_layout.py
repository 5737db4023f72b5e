"""Pascal VOC's layouts: folders of XML files, beside their images or not, and lists of what belongs to which split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detr.classes import Classes
from detr.data.annotations import SPLITS, Annotations
from detr.data.folders import has_images, split_folders
from detr.data.names_file import read_names
from detr.data.voc_file import read_xml_files
from detr.errors import InputError, UsageError
from detr.files import read_text

LOOKED_FOR = (
    "Annotations/*.xml with JPEGImages and ImageSets/Main/{train,val,trainval,test}.txt, or *.xml beside the images"
)
NAMES = "labels.txt"
"""Where the class names stand, one per line, in the order of their indices; the format itself has no such place."""

_XML, _LISTS = "Annotations", "ImageSets/Main"
_FREE_XML = (".", "annotations", "Annotations", "annotations/xmls")
_IMAGES = ("JPEGImages", "images", ".", _XML)
_MARKED = (" 1", "-1", " 0")  # lists of one class say of each image whether it is there


@dataclass(frozen=True)
class VocSource:
    """Where a split is; without a list it is all XML files of the folder."""

    annotations: Path  # the folder with the XML files
    images: Path
    list: Path | None = None
    beside: tuple[Path, ...] = ()  # all folders with XML files of the data set; their names are its classes
    names: Path | None = None  # or they are in this file

    def read(self, *, classes: Classes | None = None, strict: bool = False) -> Annotations:
        stems = None if self.list is None else tuple(_stems(self.list, self.annotations))
        return read_xml_files(
            self.annotations,
            images=self.images,
            stems=stems,
            beside=self.beside,
            names=None if self.names is None else read_names(self.names),
            classes=classes,
            strict=strict,
        )


def in_folder(root: Path) -> dict[str, VocSource]:
    """The splits of a folder in one of the layouts, or of a folder `Annotations`; none where it isn't any."""
    if root.name == _XML and _has_xml(root):
        return _classic(root.parent)
    if _has_xml(root / _XML):
        return _classic(root)
    years = [year for place in ("VOC*", "VOCdevkit/VOC*") for year in sorted(root.glob(place)) if _has_xml(year / _XML)]
    if len(years) > 1:
        raise UsageError(f"data set {root} holds several: {', '.join(map(str, years[:5]))}; give one of them")
    return _classic(years[0]) if years else _beside_images(root)


def in_free_folder(root: Path) -> dict[str, VocSource]:
    """The splits of a folder with XML files beside the images or in `annotations`, or with such folders for them."""
    folders = split_folders(root, lambda folder: _xml_of(folder) is not None)
    places = folders or {split: root for split in ("train", "val") if _xml_of(root)}
    files = {split: _xml_of(folder) or folder for split, folder in places.items()}
    beside = tuple(dict.fromkeys(files.values()))
    names = _file(root / NAMES)
    return {split: VocSource(files[split], _images_of(at), None, beside, names) for split, at in places.items()}


def _xml_of(root: Path) -> Path | None:
    return next((root / name for name in _FREE_XML if _has_xml(root / name)), None)


def _images_of(root: Path) -> Path:
    usual = (root / name for name in _IMAGES if (root / name).is_dir() and (name != "." or has_images(root)))
    return next(usual, root)


def _classic(root: Path) -> dict[str, VocSource]:
    images = _images_of(root)
    folder = root / _XML
    lists = {split: root / _LISTS / f"{split}.txt" for split in (*SPLITS, "trainval")}
    found = {split: file for split, file in lists.items() if file.is_file()}
    both = found.pop("trainval", None)
    if both is not None:
        found.setdefault("train", both)
    names = _file(root / NAMES)
    if not found:
        source = VocSource(folder, images, None, (folder,), names)
        return {"train": source, "val": source}
    return {split: VocSource(folder, images, file, (folder,), names) for split, file in found.items()}


def _beside_images(root: Path) -> dict[str, VocSource]:
    found = split_folders(root, _has_xml)
    folders = tuple(found.values())
    return {split: VocSource(folder, folder, None, folders, _file(root / NAMES)) for split, folder in found.items()}


def _stems(file: Path, folder: Path) -> Iterator[str]:
    """The names of the XML files that a list has, without their ending."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        usual = (line, line[:-2].rstrip() if line.endswith(_MARKED) else line, line.rpartition(".")[0])
        stem = next((each for each in usual if each and "/" not in each and (folder / f"{each}.xml").is_file()), None)
        if stem is None:
            raise InputError(f"{file}:{number}: {line[:60]!r} has no {folder}/{line[:60]}.xml")
        yield stem


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _has_xml(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_file() for path in folder.glob("*.xml"))
