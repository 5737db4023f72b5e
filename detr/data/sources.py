"""From the path of a data set to its splits, whatever its format and layout."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detr.config import read_yaml
from detr.data import coco_layout, voc_layout, yolo_layout
from detr.data.annotations import SPLITS, Source
from detr.data.unknown_layout import what_is_there
from detr.errors import UsageError, did_you_mean

_FORMATS = {"COCO": coco_layout, "YOLO": yolo_layout, "Pascal VOC": voc_layout}


SET_ASIDE = "to set some images aside: detr data convert DATA --to coco --out NEW --val 0.2"


def find_splits(path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None) -> dict[str, Source]:
    """The splits of a data set, keys "train", "val", "test" as far as it has them.

    `path` is a folder in a layout of COCO, YOLO or Pascal VOC (datasets/README.md shows them), a YAML naming COCO
    files, YOLO's data.yaml, VOC's folder `Annotations`, or a single COCO file, which then is both "train" and "val".
    `images` is the image folder of a single file. UsageError says what was looked for.
    """
    path = Path(path)
    if images is not None and path.suffix.lower() != ".json":
        raise UsageError(f"an image folder goes with a single annotation file (.json), not with {path}")
    found: dict[str, Source] = {}
    if path.is_dir():
        found.update(_in_folder(path))
    elif not path.is_file():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"data set {path}: no such file or folder{did_you_mean(path.name, near)}")
    elif path.suffix.lower() in (".yaml", ".yml"):
        tree = read_yaml(path)
        found.update(yolo_layout.in_yaml(path, tree) if yolo_layout.is_yolo(tree) else coco_layout.in_yaml(path, tree))
    elif path.suffix.lower() == ".json":
        found.update(coco_layout.of_file(path, images))
    else:
        raise UsageError(f"data set {path}: expected a folder, an annotation file (.json) or a list of splits (.yaml)")
    return {split: found[split] for split in SPLITS if split in found}


def find_split(path: str | os.PathLike[str], split: str, *, images: str | os.PathLike[str] | None = None) -> Source:
    """One split of a data set; UsageError if it has no such split."""
    found = find_splits(path, images=images)
    if split not in found:
        raise UsageError(f"data set {path} has no {split!r} split; it has {', '.join(found)}")
    return found[split]


def _in_folder(root: Path) -> dict[str, Source]:
    found = {name: splits for name, layout in _FORMATS.items() if (splits := layout.in_folder(root))}
    if not found and (yaml := _only_yaml(root)):
        return find_splits(yaml)
    if not found:
        found = {name: splits for name, layout in _FORMATS.items() if (splits := layout.in_free_folder(root))}
    if not found:
        looked = "; ".join(f"{name}: {layout.LOOKED_FOR}" for name, layout in _FORMATS.items())
        raise UsageError(f"data set {root}: {what_is_there(root)}. Looked for {looked}")
    if len(found) > 1:
        seen = " and ".join(f"{name} ({next(iter(splits.values())).annotations})" for name, splits in found.items())
        raise UsageError(f"data set {root} is both {seen}; give its .json, data.yaml or Annotations")
    return dict(*found.values())


def _only_yaml(root: Path) -> Path | None:
    """The YAML of a folder that names splits, whatever it is called, if there is but one."""
    files = [file for file in sorted((*root.glob("*.yaml"), *root.glob("*.yml"))) if _names_splits(read_yaml(file))]
    return files[0] if len(files) == 1 else None


def _names_splits(tree: Mapping[str, Any]) -> bool:
    return yolo_layout.is_yolo(tree) or any(isinstance(tree.get(split), dict) for split in SPLITS)
