"""Finding the annotation files and image folders of a data set, whatever its layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detr.config import Config, read_yaml, validated
from detr.data.folders import inside
from detr.errors import InputError, UsageError, did_you_mean

SPLITS = ("train", "val", "test")

_ROBOFLOW = "_annotations.coco.json"
_SPLIT_OF_FOLDER = {"train": "train", "valid": "val", "val": "val", "test": "test"}
# instances_train2017.json, instances_val.json, train.json, valid.json; neither captions_* nor instances_trainval.json
_INSTANCES = re.compile(r"(?:instances_)?(?P<tail>(?P<split>train|valid|val|test)(?![A-Za-z]).*)\.json")
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_PEEK = 4_000_000  # bytes of an annotation file that are searched for the name of an image


@dataclass(frozen=True)
class Source:
    """Where a split is: its annotation file, and the folder that its file names are relative to."""

    annotations: Path
    images: Path


class SourceConfig(Config):
    """A split in a data set's YAML; paths are relative to the YAML. Without `images` they are looked for."""

    annotations: str
    images: str | None = None


class SourcesConfig(Config):
    train: SourceConfig | None = None
    val: SourceConfig | None = None
    test: SourceConfig | None = None


def find_splits(path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None) -> dict[str, Source]:
    """The splits of a data set, keys "train", "val", "test" as far as it has them.

    `path` is a folder in COCO's or Roboflow's layout (datasets/README.md shows them), a YAML naming the files, or a
    single annotation file, which then is both "train" and "val". `images` is the image folder of a single file.
    UsageError says what was looked for.
    """
    path = Path(path)
    if images is not None and path.suffix.lower() != ".json":
        raise UsageError(f"an image folder goes with a single annotation file (.json), not with {path}")
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"data set {path}: no such file or folder{did_you_mean(path.name, near)}")
    if path.suffix.lower() in (".yaml", ".yml"):
        return _in_yaml(path)
    if path.suffix.lower() == ".json":
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        source = Source(path, Path(images) if images is not None else _images_of(path, root, path.stem))
        return {"train": source, "val": source}
    raise UsageError(f"data set {path}: expected a folder, an annotation file (.json) or a list of splits (.yaml)")


def find_split(path: str | os.PathLike[str], split: str, *, images: str | os.PathLike[str] | None = None) -> Source:
    """One split of a data set; UsageError if it has no such split."""
    found = find_splits(path, images=images)
    if split not in found:
        raise UsageError(f"data set {path} has no {split!r} split; it has {', '.join(found)}")
    return found[split]


def _in_folder(root: Path) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for name, split in _SPLIT_OF_FOLDER.items():
        file = root / name / _ROBOFLOW
        if file.is_file():
            found[split] = Source(file, file.parent)
    for folder in () if found else (root / "annotations", root):
        found = _in_annotations(root, folder)
        if found:
            break
    if not found:
        raise UsageError(_nothing_in(root))
    return {split: found[split] for split in SPLITS if split in found}


def _in_annotations(root: Path, folder: Path) -> dict[str, Source]:
    candidates: dict[str, list[tuple[Path, str]]] = {}
    for file in sorted(folder.glob("*.json")):
        match = _INSTANCES.fullmatch(file.name)
        if match:
            candidates.setdefault(_SPLIT_OF_FOLDER[match["split"]], []).append((file, match["tail"]))
    found = {}
    for split, files in candidates.items():
        if len(files) > 1:
            names = ", ".join(file.name for file, _ in files)
            raise UsageError(f"{folder} has several files for {split!r}: {names}; say which in a YAML")
        file, tail = files[0]
        found[split] = Source(file, _images_of(file, root, tail))
    return found


def _images_of(file: Path, root: Path, tail: str) -> Path:
    """The folder with the images of an annotation file; of several, the one that has the first image it names."""
    tail = tail.removeprefix("instances_")
    split = next((name for name in _SPLIT_OF_FOLDER if tail.startswith(name)), tail)
    names = (f"images/{tail}", tail, f"images/{split}", split, f"{split}/images", "images", ".")
    usual = list(dict.fromkeys([*(root / name for name in names), file.parent]))
    first = _first_file_name(file)
    if first is None:
        return next(folder for folder in usual if folder.is_dir())
    for folder in usual:
        if (folder / first).is_file():
            return folder
    elsewhere = [folder for folder in (*root.glob("*/"), *root.glob("*/*/")) if (folder / first).is_file()]
    if len(elsewhere) == 1:
        return elsewhere[0]
    looked = ", ".join(str(folder) for folder in usual)
    if elsewhere:
        several = ", ".join(map(str, elsewhere[:3]))
        raise UsageError(f"image {str(first)!r} of {file} is in several folders: {several}; say which in a YAML")
    raise UsageError(f"no image folder for {file}: its image {str(first)!r} is in none of {looked}")


def _first_file_name(file: Path) -> Path | None:
    """The first name of an image near the start of the file; None when there is none, or none that can be used."""
    try:
        with file.open("rb") as stream:
            match = _FILE_NAME.search(stream.read(_PEEK))
    except OSError as problem:
        raise UsageError(f"cannot read {file}: {problem.strerror}") from None
    if match is None:
        return None
    try:
        return Path(inside(json.loads(match[1])))
    except (InputError, ValueError):  # reading the whole file will say what is wrong with it, and where
        return None


def _in_yaml(path: Path) -> dict[str, Source]:
    config = validated(SourcesConfig, read_yaml(path), str(path))
    given = {split: getattr(config, split) for split in SPLITS if getattr(config, split) is not None}
    if not given:
        raise UsageError(f"{path}: names no split; expected train, val or test, each with annotations and images")
    found = {}
    for split, paths in given.items():
        file = path.parent / paths.annotations
        if not file.is_file():
            raise UsageError(f"{path}: {split}.annotations is {file}: no such file")
        found[split] = Source(file, _given_or_found(path, file, paths.images))
    return found


def _given_or_found(path: Path, file: Path, images: str | None) -> Path:
    return _images_of(file, file.parent, file.stem) if images is None else path.parent / images


def _nothing_in(root: Path) -> str:
    looked: Sequence[str] = (f"annotations/instances_{{{','.join(SPLITS)}}}*.json", f"{{train,valid,test}}/{_ROBOFLOW}")
    hint = ""
    if _any(root, ("data.yaml", "labels", "train/labels")):
        hint = "; it looks like a YOLO data set: its labels have to be converted to COCO JSON first"
    elif _any(root, ("Annotations", "VOC2007", "VOC2012", "VOCdevkit")):
        hint = "; it looks like a Pascal VOC data set: its labels have to be converted to COCO JSON first"
    elif not any(root.iterdir()):
        hint = "; it is empty"
    return f"data set {root}: found neither {looked[0]} nor {looked[1]}{hint}"


def _any(root: Path, names: Iterable[str]) -> bool:
    return any((root / name).exists() for name in names)
