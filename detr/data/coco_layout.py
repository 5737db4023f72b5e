"""COCO's layouts: finding annotation files and image folders by the names they usually have."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from detr.classes import Classes
from detr.config import Config, validated
from detr.data.annotations import SPLIT_NAME, SPLITS, Annotations, split_of
from detr.data.coco_file import read_annotations
from detr.data.folders import has_image, inside, split_folders
from detr.data.label_studio import possible_names
from detr.errors import InputError, UsageError

LOOKED_FOR = (
    "annotations/instances_{train,val,test}*.json, {train,valid,test}/_annotations.coco.json, or one annotation file"
)

_ROBOFLOW = "_annotations.coco.json"
# instances_train2017.json, instances_Validation.json, train.json; neither captions_* nor instances_trainval.json
_INSTANCES = re.compile(rf"(?:instances_)?(?P<tail>{SPLIT_NAME.pattern}.*)\.json", re.IGNORECASE)
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_TRIED = 20  # images that are looked for before they are taken to be elsewhere
_PEEK = 4_000_000  # bytes of an annotation file that are searched for the name of an image


@dataclass(frozen=True)
class CocoSource:
    """Where a split is: its annotation file, and the folder that its file names are relative to."""

    annotations: Path
    images: Path

    def read(self, *, classes: Classes | None = None, strict: bool = False) -> Annotations:
        return read_annotations(self.annotations, images=self.images, classes=classes, strict=strict)


class SourceConfig(Config):
    """A split in a data set's YAML; paths are relative to the YAML. Without `images` they are looked for."""

    annotations: str
    images: str | None = None


class SourcesConfig(Config):
    train: SourceConfig | None = None
    val: SourceConfig | None = None
    test: SourceConfig | None = None


def in_folder(root: Path) -> dict[str, CocoSource]:
    """The splits of a folder in COCO's layout or Roboflow's; none where it is in neither."""
    folders = split_folders(root, lambda folder: (folder / _ROBOFLOW).is_file())
    found = {split: CocoSource(folder / _ROBOFLOW, folder) for split, folder in folders.items()}
    return found or _in_annotations(root, root / "annotations") or _in_annotations(root, root)


def in_free_folder(root: Path) -> dict[str, CocoSource]:
    """The splits of a folder with one annotation file, whatever its name, or with a folder like that for each split."""
    folders = split_folders(root, lambda folder: len(annotation_files(folder)) == 1)
    if folders:
        return {split: of_file(annotation_files(folder)[0], None)["train"] for split, folder in folders.items()}
    files = annotation_files(root)
    return of_file(files[0], None) if len(files) == 1 else {}


def annotation_files(root: Path) -> list[Path]:
    """The files of a folder that look like COCO's, in its `annotations` or, where there are none, in itself."""
    places = (root / "annotations", root)
    found = ([file for file in sorted(folder.glob("*.json")) if _is_coco(file)] for folder in places)
    return next(filter(None, found), [])


def in_yaml(path: Path, tree: Mapping[str, Any]) -> dict[str, CocoSource]:
    """The splits that a YAML with the content `tree` names."""
    config = validated(SourcesConfig, tree, str(path))
    given = {split: getattr(config, split) for split in SPLITS if getattr(config, split) is not None}
    if not given:
        raise UsageError(f"{path}: names no split; expected train, val or test, each with annotations and images")
    found = {}
    for split, paths in given.items():
        file = path.parent / paths.annotations
        if not file.is_file():
            raise UsageError(f"{path}: {split}.annotations is {file}: no such file")
        found[split] = CocoSource(file, _given_or_found(path, file, paths.images))
    return found


def of_file(path: Path, images: str | os.PathLike[str] | None) -> dict[str, CocoSource]:
    """A single annotation file, which is both "train" and "val"."""
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    source = CocoSource(path, Path(images) if images is not None else _images_of(path, root, path.stem))
    return {"train": source, "val": source}


def _in_annotations(root: Path, folder: Path) -> dict[str, CocoSource]:
    candidates: dict[str, list[tuple[Path, str]]] = {}
    for file in sorted(folder.glob("*.json")):
        match = _INSTANCES.fullmatch(file.name)
        if match:
            candidates.setdefault(split_of(match["tail"]) or "", []).append((file, match["tail"]))
    found = {}
    for split, files in candidates.items():
        if len(files) > 1:
            names = ", ".join(file.name for file, _ in files)
            raise UsageError(f"{folder} has several files for {split!r}: {names}; say which in a YAML")
        file, tail = files[0]
        found[split] = CocoSource(file, _images_of(file, root, tail))
    return found


def _images_of(file: Path, root: Path, tail: str) -> Path:
    """The folder or archive with the images of an annotation file; of several, the one with the first that is there."""
    tail = tail.removeprefix("instances_")
    name = SPLIT_NAME.match(tail)
    split = name[0] if name else tail
    places = (f"images/{tail}", tail, f"images/{split}", split, f"{split}/images", "images", ".")
    usual = list(dict.fromkeys([*(root / place for place in places), file.parent]))
    usual += [root / f"{place}.tar" for place in places[:-1] if (root / f"{place}.tar").is_file()]
    firsts = _first_file_names(file)
    if not firsts:
        return next(folder for folder in usual if folder.is_dir())
    for names in firsts:  # where the first is missing, it is that image which is, and not all of them
        for folder in usual:
            if _has(folder, names):
                return folder
    first = firsts[0]
    elsewhere = [folder for folder in (*root.glob("*/"), *root.glob("*/*/")) if _has(folder, first)]
    of_others = [folder for folder in elsewhere if _is_of_another_split(folder.relative_to(root), name)]
    own = [folder for folder in elsewhere if folder not in of_others]
    if len(own) == 1:
        return own[0]
    if own:
        several = ", ".join(map(str, own[:3]))
        raise UsageError(f"image {str(first[0])!r} of {file} is in several folders: {several}; say which in a YAML")
    looked = ", ".join(str(folder) for folder in usual)
    other = (
        f"; {of_others[0]} has one, but is called as another split: is it meant, say so in a YAML" if of_others else ""
    )
    raise UsageError(f"no image folder for {file}: its image {str(first[0])!r} is in none of {looked}{other}")


def _is_of_another_split(folder: Path, name: re.Match[str] | None) -> bool:
    """Pictures of two splits often have the same names: 000001.jpg, 000002.jpg."""
    splits = {split_of(part) for part in folder.parts} - {None}
    return name is not None and bool(splits) and name.lastgroup not in splits


def _has(images: Path, names: Sequence[PurePosixPath]) -> bool:
    return any(has_image(images, name) for name in names)


def _first_file_names(file: Path) -> list[list[PurePosixPath]]:
    """What the first images near the start of the file may be called, as far as such names can be used."""
    found = []
    for match in islice(_FILE_NAME.finditer(_beginning(file)), _TRIED):
        with suppress(InputError, ValueError):  # reading the whole file will say what is wrong with it, and where
            found.append([inside(name) for name in possible_names(json.loads(match[1]))])
    return found


def _is_coco(file: Path) -> bool:
    text = _beginning(file)
    return text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and _FILE_NAME.search(text) is not None


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_PEEK)
    except OSError as problem:
        raise UsageError(f"cannot read {file}: {problem.strerror}") from None


def _given_or_found(path: Path, file: Path, images: str | None) -> Path:
    return _images_of(file, file.parent, file.stem) if images is None else path.parent / images
