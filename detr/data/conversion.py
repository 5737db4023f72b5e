"""From one format of data sets to another: the same images, boxes and names, each split in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from detr.archives import Member, StoredFile
from detr.classes import Classes
from detr.data import Progress
from detr.data.annotations import Source
from detr.data.coco import clipped
from detr.data.folders import ImageFolder, inside
from detr.data.setting_aside import set_aside
from detr.data.sources import find_splits
from detr.data.threads import on_all_cores
from detr.data.writing import FORMATS, Format, Part
from detr.errors import InputError, UsageError, counted, did_you_mean
from detr.files import folder_written_aside
from detr.image_file import IMAGE_SUFFIXES, read_size


@dataclass(frozen=True, eq=False)
class Converted:
    """What was written."""

    classes: Classes
    images: dict[str, int]  # of each split
    boxes: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self, out: Path) -> dict[str, Any]:
        splits = {split: {"images": count, "boxes": self.boxes[split]} for split, count in self.images.items()}
        return {"folder": str(out), "splits": splits, "classes": self.classes.rows(), "notes": list(self.notes)}


def convert(
    data: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    copy: bool = False,
    val: float | None = None,
    progress: Progress | None = None,
) -> Converted:
    """Write all splits of a data set to the folder `out`, in the format `to`: "coco", "yolo" or "voc".

    `val` is the share of the training images that become the validation split of a set that has none of its own.
    Images are hard links to those of `data`, or copies, as those of an archive always are. Classes keep their order
    and names; what the format can't say is left out with a note. UsageError where `out` holds something; InputError
    where `data` can't be read whole.
    """
    if to not in FORMATS:
        raise UsageError(f"format {to!r}: expected one of {', '.join(FORMATS)}{did_you_mean(to, FORMATS)}")
    format = FORMATS[to]
    notes: list[str] = []
    with folder_written_aside(out) as folder:
        parts = list(_parts(find_splits(data, images=images), notes, progress))
        if val is not None:
            parts = _with_val(parts, val)
        classes = parts[0].annotations.classes
        parts = [_fitting(part, format, notes) for part in parts]
        write_parts(folder, parts, format, copy=copy, progress=progress)
    return Converted(
        classes=classes,
        images={part.split: len(part.sources) for part in parts},
        boxes={part.split: len(part.annotations.boxes) for part in parts},
        notes=tuple(notes),
    )


def write_parts(
    folder: Path, parts: Sequence[Part], format: Format, *, copy: bool = False, progress: Progress | None = None
) -> None:
    """Annotations and images, these as hard links or as copies."""
    parts = _renamed(parts, format)
    format.write(folder, parts, parts[0].annotations.classes)
    pairs = [
        (source, folder / format.folder.format(split=part.split) / name)
        for part in parts
        for source, name in zip(part.sources, part.annotations.file_names, strict=True)
    ]
    for source, target in progress(pairs, total=len(pairs), description="images") if progress else pairs:
        _place(source, target, copy)


def _parts(splits: dict[str, Source], notes: list[str], progress: Progress | None) -> Iterator[Part]:
    """The splits, read with one order of classes and with the sizes of the images themselves; each source once."""
    classes: Classes | None = None
    done: list[Source] = []
    for split, source in splits.items():
        if source in done:
            continue
        done.append(source)
        read = source.read(classes=classes)
        classes = classes or read.classes
        folder = ImageFolder(source.images)
        folder.require(read.file_names)
        paths = [folder.file(name) for name in read.file_names]
        sizes = np.array(on_all_cores(read_size, paths, progress, f"sizes of {split}"), np.int64).reshape(-1, 2)
        said = np.stack([read.heights, read.widths], 1)
        other = int(((said != sizes) & (said > 0)).any(1).sum())
        notes += [f"{split}: {note}" for note in read.notes]
        if other:
            notes.append(
                f"{split}: {counted(other, 'image is', 'images are')} not of the size that is said; "
                "the true one is written"
            )
        found = replace(read, classes=classes, heights=sizes[:, 0], widths=sizes[:, 1])
        yield Part(split, found, tuple(paths))


def _with_val(parts: Sequence[Part], share: float) -> list[Part]:
    splits = [part.split for part in parts]
    if "train" not in splits or "val" in splits:
        raise UsageError(f"a validation split is set aside where there is only train; this set has {', '.join(splits)}")
    place = splits.index("train")
    whole = parts[place]
    aside = set_aside(whole.annotations, share)
    found = []
    for split, images in (("train", ~aside), ("val", aside)):
        sources = tuple(source for source, is_kept in zip(whole.sources, images, strict=True) if is_kept)
        found.append(Part(split, whole.annotations.chosen(images), sources))
    return [*found, *parts[:place], *parts[place + 1 :]]


def _fitting(part: Part, format: Format, notes: list[str]) -> Part:
    """With what the format has words for: boxes within their images, and crowds where it knows them."""
    if format.says_all:
        return part
    known = part.annotations
    heights, widths = known.heights[known.image_indices], known.widths[known.image_indices]
    corners, is_inside = clipped(known.boxes, heights, widths)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    # Clipping goes by corners and back, which costs a last bit where there is nothing to clip.
    is_cut = np.abs(boxes - known.boxes).max(1, initial=0) > 1e-6
    kept = is_inside & (format.has_crowds | ~known.crowd)
    for count, what, then in (
        (int((is_cut & kept).sum()), ("box reaches", "boxes reach"), "over the edge of the image, clipped"),
        (int((~is_inside).sum()), ("box lies", "boxes lie"), "outside of the image, left out"),
        (int((is_inside & ~kept).sum()), ("crowd", "crowds"), "left out, which the format can't say"),
    ):
        if count:
            notes.append(f"{part.split}: {counted(count, *what)} {then}")
    found = replace(
        known,
        image_indices=known.image_indices[kept],
        labels=known.labels[kept],
        boxes=np.where(is_cut[:, None], boxes, known.boxes)[kept],
        areas=known.areas[kept],
        crowd=known.crowd[kept],
    )
    return replace(part, annotations=found)


def _renamed(parts: Sequence[Part], format: Format) -> list[Part]:
    """With the images' new names: as they were, unless the format tells images by less than their whole path."""
    taken: dict[str, set[str]] = {}
    found = []
    for part in parts:
        beside = taken.setdefault(format.folder.format(split=part.split), set())
        names = tuple(_new_name(name, format, beside) for name in part.annotations.file_names)
        found.append(replace(part, annotations=replace(part.annotations, file_names=names)))
    return found


def _new_name(name: str, format: Format, taken: set[str]) -> str:
    path = inside(name)
    if format.says_all:
        return _free(path.as_posix(), taken, lambda text: text)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"image {name!r} has no usual ending, by which the format tells images; rename it first")
    plain = "".join(character if character.isprintable() else "_" for character in "_".join(path.parts)).strip()
    return _free(f"_{plain}" if plain.startswith(".") else plain, taken, lambda text: os.path.splitext(text)[0])


def _free(name: str, taken: set[str], key: Callable[[str], str]) -> str:
    """The name, or with _2, _3, ... what none of those taken is told by, whatever the case."""
    stem, suffix = os.path.splitext(name)
    number = 1
    while key(name).casefold() in taken:
        number += 1
        name = f"{stem}_{number}{suffix}"
    taken.add(key(name).casefold())
    return name


def _place(source: StoredFile, target: Path, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Member):
        target.write_bytes(source.open().read())
        return
    if copy:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as problem:
        raise UsageError(f"cannot link {source} ({problem.strerror}); copy the images with --copy") from problem
