"""YOLO's layout: what a data.yaml says about splits and class names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detr.classes import Classes
from detr.config import read_yaml
from detr.data.annotations import Annotations, split_of
from detr.data.folders import has_images, split_folders
from detr.data.names_file import read_names
from detr.data.yolo_file import read_labels
from detr.errors import InputError, UsageError, did_you_mean

LOOKED_FOR = "data.yaml with train, val and names, or classes.txt beside images and labels"
NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
"""Where the class names stand in sets without a data.yaml: labelImg's and Label Studio's, and CVAT's YOLO 1.1."""

_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_COLUMNS = 5  # class, cx, cy, w, h


@dataclass(frozen=True)
class YoloSource:
    """Where a split is, and what the YAML says for all of them."""

    annotations: Path  # the YAML
    images: Path  # the folder that file names are relative to
    root: Path  # of the data set; nothing outside of it is read
    listed: tuple[Path, ...]  # folders with images, and lists of images
    names: Classes  # the ids are those of the label files
    key_columns: int = 0  # of key points, behind the box of each row
    notes: tuple[str, ...] = ()

    def read(self, *, classes: Classes | None = None, strict: bool = False) -> Annotations:
        found = read_labels(
            self.annotations,
            root=self.root,
            images=self.images,
            listed=self.listed,
            names=self.names,
            columns=_COLUMNS + self.key_columns if self.key_columns else None,
            classes=classes,
            strict=strict,
        )
        return replace(found, notes=(*self.notes, *found.notes))


def is_yolo(tree: Mapping[str, Any]) -> bool:
    """Whether it is the content of a data.yaml, rather than of a YAML that names COCO files."""
    splits = [tree.get(key) for keys in _KEYS.values() for key in keys]
    return "names" in tree or "nc" in tree or any(isinstance(split, (str, list)) for split in splits)


def in_folder(root: Path) -> dict[str, YoloSource]:
    """The splits of a folder with a data.yaml; none where there is no such file."""
    stems = ("data", "dataset", root.resolve().name)
    files = dict.fromkeys(root / f"{stem}{suffix}" for stem in stems for suffix in (".yaml", ".yml"))
    found = [(file, tree) for file in files if file.is_file() and is_yolo(tree := read_yaml(file))]
    if len(found) > 1:
        raise UsageError(f"data set {root} has {found[0][0].name} and {found[1][0].name}; give the one that counts")
    return in_yaml(*found[0]) if found else {}


def in_free_folder(root: Path) -> dict[str, YoloSource]:
    """The splits of a folder without a data.yaml whose class names are in a file; none where there is no such file."""
    file = next((root / name for name in NAMES if (root / name).is_file()), None)
    if file is None:
        return {}
    names = read_names(file)
    return {split: YoloSource(file, folder, root, (folder,), names) for split, folder in _free_places(root).items()}


def _free_places(root: Path) -> dict[str, Path]:
    """The folders with the images of the splits; where there is but one folder, it is that of two."""
    below = split_folders(root / "images", has_images)
    beside = split_folders(root, lambda folder: has_images(folder) or has_images(folder / "images"))
    if below or beside:
        return below or {split: at / "images" if (at / "images").is_dir() else at for split, at in beside.items()}
    darknet = [(split_of(folder.name.removeprefix("obj_")), folder) for folder in sorted(root.glob("obj_*_data/"))]
    if darknet:
        return {split: folder for split, folder in darknet if split and has_images(folder)}
    only = next((folder for folder in (root / "images", root) if has_images(folder)), None)
    return {"train": only, "val": only} if only else {}


def in_yaml(path: Path, tree: Mapping[str, Any]) -> dict[str, YoloSource]:
    """The splits that a data.yaml with the content `tree` names; a `test` that isn't there is left out.

    Other keys, among them `download`, are left alone.
    """
    root, notes = _root(path, tree)
    names = _names(path, tree)
    key_columns = _key_columns(path, tree.get("kpt_shape"))
    found: dict[str, YoloSource] = {}
    for split, keys in _KEYS.items():
        key = next((key for key in keys if tree.get(key) is not None), None)
        if key is None:
            continue
        given = tree[key] if isinstance(tree[key], list) else [tree[key]]
        if split == "test" and found and not any(_exists(path, root, key, each) for each in given):
            continue  # exports name it whether or not they have it
        listed = tuple(_place(path, root, key, each) for each in given)
        images = listed[0] if len(listed) == 1 and listed[0].is_dir() else root
        found[split] = YoloSource(path, images, root, listed, names, key_columns, notes)
    if not found:
        hint = did_you_mean("train", tree)
        raise UsageError(f"{path}: names no split; expected train, val or test: folders or lists of images{hint}")
    return found


def _root(path: Path, tree: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
    """The folder of the data set, and what is worth saying about that."""
    given = tree.get("path")
    if given is None:
        return path.parent, ()
    if not isinstance(given, str):
        raise UsageError(f"{path}: path is {given!r}; expected the folder of the data set")
    for folder in (path.parent / given, Path(given)):
        if folder.is_dir():
            return folder, ()
    train = tree.get("train")
    if isinstance(train, str) and train.strip(" ./\\") and _exists(path, path.parent, "train", train):
        return path.parent, (f"path is {given!r}, which is not here; the folder of {path.name} is taken",)
    raise UsageError(
        f"{path}: path is {given!r}: no such folder, neither from where the YAML is nor from here; "
        "without path it is the folder of the YAML"
    )


def _exists(path: Path, root: Path, key: str, given: Any) -> bool:
    return (root / _within(path, root, key, given)).exists()


def _place(path: Path, root: Path, key: str, given: Any) -> Path:
    """The folder, or the list of images, that a YAML names."""
    found = root / _within(path, root, key, given)
    if found.is_dir() or (found.is_file() and found.suffix.lower() == ".txt"):
        return found
    if found.is_file():
        raise UsageError(f"{path}: {key} is {given!r}; expected a folder with images, or a list of them (.txt)")
    near = [entry.name for entry in found.parent.iterdir()] if found.parent.is_dir() else []
    raise UsageError(f"{path}: {key} is {given!r}: no such file or folder {found}{did_you_mean(found.name, near)}")


def _within(path: Path, root: Path, key: str, given: Any) -> str:
    """A path of the YAML from `root` on. `../train/images` is Roboflow's way to say train/images beside the YAML."""
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise UsageError(f"{path}: {key} has {given!r}; expected a folder with images, or a list of them (.txt)")
    plain = given.strip().replace("\\", "/").removeprefix("../")
    below = os.path.relpath(root / (_behind_root(root, plain) or plain), root)
    if below.split(os.sep)[0] == "..":
        raise UsageError(f"{path}: {key} is {given!r}, outside of the data set {root}; path: says where that begins")
    return below


def _behind_root(root: Path, given: str) -> str | None:
    """What is there of a path that names the set's own folder, as exports do and YAMLs that were moved."""
    _, name, behind = f"/{given}".rpartition(f"/{root.resolve().name}/")
    return behind if name and not (root / given).exists() and (root / behind).exists() else None


def _names(path: Path, tree: Mapping[str, Any]) -> Classes:
    given, count = tree.get("names"), tree.get("nc")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise UsageError(f"{path}: nc is {count!r}; expected the number of classes")
    if given is None:
        if count is None:
            raise UsageError(f"{path}: names is missing; expected the class names, in the order of their numbers")
        given = [f"class_{number}" for number in range(count)]
    rows = list(given.items()) if isinstance(given, dict) else list(enumerate(given)) if isinstance(given, list) else []
    if not rows:
        raise UsageError(f"{path}: names is {given!r}; expected a list of class names, or numbers with names")
    for id, name in rows:
        if not isinstance(id, int) or isinstance(id, bool) or id < 0:
            raise UsageError(f"{path}: names has {id!r}; expected numbers from 0")
        if isinstance(name, bool) or not isinstance(name, (str, int)) or not str(name).strip():
            raise UsageError(f"{path}: names has {name!r} as {id}; expected text (put it in quotes)")
    if count not in (None, len(rows)):
        raise UsageError(f"{path}: nc is {count}, but names has {len(rows)}")
    rows.sort()
    try:
        return Classes(tuple(id for id, _ in rows), tuple(str(name) for _, name in rows))
    except InputError as problem:
        raise UsageError(f"{path}: names: {problem}") from None


def _key_columns(path: Path, shape: Any) -> int:
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and 0 < n < 10_000 for n in shape):
        raise UsageError(f"{path}: kpt_shape is {shape!r}; expected the number of key points and of values for each")
    return shape[0] * shape[1]
