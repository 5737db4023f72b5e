"""COCO's layouts: finding annotation files and image folders by the names they usually have."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from detr.archives import archive, is_archive
from detr.classes import Classes
from detr.config import Config, validated
from detr.data.annotations import SPLIT_OF_FOLDER, SPLITS, Annotations
from detr.data.coco_file import read_annotations
from detr.data.folders import inside
from detr.errors import InputError, UsageError

LOOKED_FOR = "annotations/instances_{train,val,test}*.json or {train,valid,test}/_annotations.coco.json"

_ROBOFLOW = "_annotations.coco.json"
# instances_train2017.json, instances_val.json, train.json, valid.json; neither captions_* nor instances_trainval.json
_INSTANCES = re.compile(r"(?:instances_)?(?P<tail>(?P<split>train|valid|val|test)(?![A-Za-z]).*)\.json")
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_PEEK = 4_000_000  # bytes of an annotation file that are searched for the name of an image


@dataclass(frozen=True)
class CocoSource:
    """Where a split is: its annotation file, and the folder that its file names are relative to."""

    annotations: Path
    images: Path

    def read(self, *, classes: Classes | None = None, strict: bool = False) -> Annotations:
        return read_annotations(self.annotations, classes=classes, strict=strict)


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
    files = [(split, root / name / _ROBOFLOW) for name, split in SPLIT_OF_FOLDER.items()]
    found = {split: CocoSource(file, file.parent) for split, file in files if file.is_file()}
    return found or _in_annotations(root, root / "annotations") or _in_annotations(root, root)


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
            candidates.setdefault(SPLIT_OF_FOLDER[match["split"]], []).append((file, match["tail"]))
    found = {}
    for split, files in candidates.items():
        if len(files) > 1:
            names = ", ".join(file.name for file, _ in files)
            raise UsageError(f"{folder} has several files for {split!r}: {names}; say which in a YAML")
        file, tail = files[0]
        found[split] = CocoSource(file, _images_of(file, root, tail))
    return found


def _images_of(file: Path, root: Path, tail: str) -> Path:
    """The folder or archive with the images of an annotation file; of several, the one with the first it names."""
    tail = tail.removeprefix("instances_")
    split = next((name for name in SPLIT_OF_FOLDER if tail.startswith(name)), tail)
    names = (f"images/{tail}", tail, f"images/{split}", split, f"{split}/images", "images", ".")
    usual = list(dict.fromkeys([*(root / name for name in names), file.parent]))
    usual += [root / f"{name}.tar" for name in names[:-1] if (root / f"{name}.tar").is_file()]
    first = _first_file_name(file)
    if first is None:
        return next(folder for folder in usual if folder.is_dir())
    for folder in usual:
        if _has(folder, first):
            return folder
    elsewhere = [folder for folder in (*root.glob("*/"), *root.glob("*/*/")) if _has(folder, first)]
    if len(elsewhere) == 1:
        return elsewhere[0]
    looked = ", ".join(str(folder) for folder in usual)
    if elsewhere:
        several = ", ".join(map(str, elsewhere[:3]))
        raise UsageError(f"image {str(first)!r} of {file} is in several folders: {several}; say which in a YAML")
    raise UsageError(f"no image folder for {file}: its image {str(first)!r} is in none of {looked}")


def _has(images: Path, name: PurePosixPath) -> bool:
    if is_archive(images):
        return archive(images).find(name) is not None
    return (images / name).is_file()


def _first_file_name(file: Path) -> PurePosixPath | None:
    """The first name of an image near the start of the file; None when there is none, or none that can be used."""
    try:
        with file.open("rb") as stream:
            match = _FILE_NAME.search(stream.read(_PEEK))
    except OSError as problem:
        raise UsageError(f"cannot read {file}: {problem.strerror}") from None
    if match is None:
        return None
    try:
        return inside(json.loads(match[1]))
    except (InputError, ValueError):  # reading the whole file will say what is wrong with it, and where
        return None


def _given_or_found(path: Path, file: Path, images: str | None) -> Path:
    return _images_of(file, file.parent, file.stem) if images is None else path.parent / images
