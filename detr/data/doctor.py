"""A data set examined before training: every image decoded, every box looked at, and advice in a DETR's own terms."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.classes import Classes
from detr.data import Progress
from detr.data.annotations import Source
from detr.data.doctor_advice import Plan, advice
from detr.data.doctor_boxes import SMALLEST, faults, input_sides
from detr.data.doctor_findings import Finding, Level, Shown, of_images, of_rows
from detr.data.doctor_images import Seen, look_at
from detr.data.doctor_repeats import repeats
from detr.data.folders import ImageFolder
from detr.data.sources import SET_ASIDE, find_splits
from detr.data.threads import on_all_cores
from detr.errors import counted, listed

Group = tuple[tuple[str, int], ...]  # (split, index of the image)

_MANY = 0.05  # of the boxes
_FEW = 20  # boxes of a class in training, below which little can be learnt


@dataclass(frozen=True, eq=False)
class Report:
    """What the doctor found, worst first."""

    classes: Classes
    seen: tuple[Seen, ...]
    findings: tuple[Finding, ...]
    groups: tuple[Group, ...]  # of images that show the same picture
    advice: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        """No error and no warning; notes don't count."""
        return all(finding.level == "note" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        splits = {seen.split: {"images": len(seen.paths), "boxes": len(seen.annotations.boxes)} for seen in self.seen}
        paths = {seen.split: seen.paths for seen in self.seen}
        return {
            "healthy": self.is_healthy,
            "splits": splits,
            "classes": self.classes.rows(),
            "findings": [finding.to_json(paths) for finding in self.findings],
            "advice": list(self.advice),
        }


def examine(
    data: str | os.PathLike[str],
    plan: Plan,
    *,
    images: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read all of a data set and look at every image; InputError where it can't be read at all."""
    splits = find_splits(data, images=images)
    seen = tuple(_seen(splits, progress))
    found = [finding for each in seen for finding in (*_of_images(each), *_of_boxes(each, plan), *_of_reading(each))]
    places = [(each.split, index) for each in seen for index in range(len(each.paths))]
    groups = [tuple(places[i] for i in group) for group in repeats([look for each in seen for look in each.looks])]
    found += [*_of_measuring(splits), *_of_classes(seen), *_of_repeats(groups, seen)]
    order = ("error", "warning", "note")
    found.sort(key=lambda finding: order.index(finding.level))
    return Report(seen[0].annotations.classes, seen, tuple(found), tuple(groups), tuple(advice(seen, plan)))


def _seen(splits: dict[str, Source], progress: Progress | None) -> Iterator[Seen]:
    classes: Classes | None = None
    done: list[Source] = []
    for split, source in splits.items():
        if source not in done:
            done.append(source)
            known = source.read(classes=classes)
            classes = classes or known.classes
            folder = ImageFolder(source.images)
            folder.missing(known.file_names)  # refuses what leads out of the set
            paths = tuple(folder.file(name) for name in known.file_names)
            yield Seen(split, known, paths, tuple(on_all_cores(look_at, paths, progress, f"looking at {split}")))


def _of_images(seen: Seen) -> Iterator[Finding]:
    known, looks = seen.annotations, seen.looks
    broken = [i for i, look in enumerate(looks) if look.problem]
    problems = [looks[i].problem for i in broken]
    yield from of_images(
        seen, "unreadable", "error", broken, ("image cannot be read", "images cannot be read"), problems
    )
    said = np.stack([known.heights, known.widths], 1)
    other = np.flatnonzero(((said != seen.sizes) & (said > 0)).any(1)).tolist()
    words = [f"{seen.sizes[i][1]} x {seen.sizes[i][0]}, said to be {said[i][1]} x {said[i][0]}" for i in other]
    what = "not of the size that is said"
    yield from of_images(seen, "size", "warning", other, (f"image is {what}", f"images are {what}"), words)
    turned = [i for i, look in enumerate(looks) if look.orientation != 1]
    what = "turned by EXIF; boxes are taken to be of the upright image, as viewers show it"
    words = [f"orientation {looks[i].orientation}" for i in turned]
    yield from of_images(seen, "exif", "note", turned, (f"image is {what}", f"images are {what}"), words)


_WRONG: tuple[tuple[str, Level, tuple[str, str]], ...] = (
    ("outside", "error", ("lies outside of its image", "lie outside of their image")),
    ("thin", "error", ("is less than a pixel wide or high", "are less than a pixel wide or high")),
    ("repeated", "warning", ("is there twice, with the same class", "are there twice, with the same class")),
    ("contradicting", "warning", ("is there twice, as two classes", "are there twice, as two classes")),
    ("over", "warning", ("reaches over the edge of its image", "reach over the edge of their image")),
)
"""Of `Faults`: how bad each is, and what is said of one box, and of several."""


def _of_boxes(seen: Seen, plan: Plan) -> Iterator[Finding]:
    known = seen.annotations
    wrong = faults(seen)
    if known.crowd.all():
        text = f"{seen.split}: none of {counted(len(seen.paths), 'image')} has a box: nothing to learn, nothing to find"
        yield Finding("empty", "error", seen.split, text, len(seen.paths))
    if known.num_flat:
        text = f"{seen.split}: {counted(known.num_flat, 'box has', 'boxes have')} no width or height; left out"
        yield Finding("flat", "error", seen.split, text, known.num_flat)
    for kind, level, sayings in _WRONG:
        yield from of_rows(seen, kind, level, getattr(wrong, kind), sayings)
    tiny = (input_sides(seen, plan.input) < SMALLEST) & ~wrong.outside & ~known.crowd
    small = f"smaller than {SMALLEST} x {SMALLEST} pixels of the input"
    level = "warning" if tiny.sum() > _MANY * len(tiny) else "note"
    yield from of_rows(seen, "tiny", level, tiny, (f"is {small}", f"are {small}"))
    objects = np.bincount(known.image_indices[~known.crowd], minlength=len(seen.paths))
    many = np.flatnonzero(objects > plan.queries).tolist()
    what = f"more objects than {plan.model} has queries ({plan.queries}); all cannot be found"
    words = [f"{objects[i]} objects" for i in many]
    yield from of_images(seen, "queries", "error", many, (f"image has {what}", f"images have {what}"), words)


def _of_reading(seen: Seen) -> Iterator[Finding]:
    for note in seen.annotations.notes:
        yield Finding("reading", "note", seen.split, f"{seen.split}: {note}", 1)


def _of_measuring(splits: Mapping[str, Source]) -> Iterator[Finding]:
    """Whether there is something to measure on that nothing is learnt from."""
    if "train" in splits and "val" not in splits:
        yield Finding("val", "note", "", f"no validation split, so a training has no AP; {SET_ASIDE}", 1)
    elif "train" in splits and splits["val"] == splits["train"]:
        yield Finding("val", "note", "val", f"val is train, so AP says what is learnt by heart; {SET_ASIDE}", 1)


def _of_classes(seen: Sequence[Seen]) -> Iterator[Finding]:
    names = seen[0].annotations.classes.names
    counts = {each.split: each.annotations.counts() for each in seen}
    if "train" in counts:
        yield from _of_splits(names, counts.pop("train"), counts)
    plain = Counter(name.strip().casefold() for name in names)
    alike = [name for name in names if plain[name.strip().casefold()] > 1]
    if alike:
        yield Finding("names", "warning", "", f"class names differ in case or blanks only: {listed(alike)}", len(alike))


def _of_splits(
    names: Sequence[str], train: NDArray[np.int64], others: Mapping[str, NDArray[np.int64]]
) -> Iterator[Finding]:
    """From how many boxes of each class, [C], there are in training and elsewhere."""
    for split, count in others.items():
        unseen = [names[i] for i in np.flatnonzero((count > 0) & (train == 0)).tolist()]
        absent = [names[i] for i in np.flatnonzero((count == 0) & (train > 0)).tolist()]
        if unseen:
            text = f"{split}: {_classes_have(unseen)} boxes here and none in train: {listed(unseen)}"
            yield Finding("class", "error", split, text, len(unseen))
        if absent:
            text = f"{split}: {_classes_have(absent)} no boxes here, so AP is not measured: {listed(absent)}"
            yield Finding("class", "warning", split, text, len(absent))
    few = [f"{names[i]} ({train[i]})" for i in np.flatnonzero((train > 0) & (train < _FEW)).tolist()]
    if few:
        text = f"train: {_classes_have(few)} fewer than {_FEW} boxes: {listed(few)}"
        yield Finding("few", "note", "train", text, len(few))


def _of_repeats(groups: Sequence[Group], seen: Sequence[Seen]) -> Iterator[Finding]:
    paths = {each.split: each.paths for each in seen}
    leaks: list[Shown] = []
    within: list[Shown] = []
    for group in groups:
        for place, (split, index) in enumerate(group[1:], 1):
            other = next((each for each in group[:place] if each[0] != split), None)
            as_which = other or group[0]
            caption = f"as {as_which[0]}: {paths[as_which[0]][as_which[1]].name}"
            (leaks if other else within).append(Shown(split, index, (), caption, as_which))
    if leaks:
        where = " and ".join(sorted({shown.split for shown in leaks}))
        what = counted(len(leaks), "image is", "images are")
        text = f"{where}: {what} in another split too, so that AP says less than it seems to"
        yield Finding("leak", "error", where, text, len(leaks), tuple(leaks))
    if within:
        text = f"{counted(len(within), 'image shows', 'images show')} the same picture as another one of the split"
        yield Finding("repeat", "warning", "", text, len(within), tuple(within))


def _classes_have(names: list[str]) -> str:
    return counted(len(names), "class has", "classes have")
