"""From the path of a data set to the sets that training takes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detr.classes import Classes
from detr.data import Progress
from detr.data.annotations import Source
from detr.data.coco import CocoDataset
from detr.data.folders import inside
from detr.data.kept_pixels import kept
from detr.data.soundness import require_sound_images
from detr.data.sources import SET_ASIDE, find_split, find_splits


def open_split(source: Source, *, classes: Classes | None = None) -> CocoDataset:
    """The images and boxes of a split, whatever its format; with the indices of `classes`, where given."""
    return CocoDataset(source.read(classes=classes), source.images)


def open_for_training(
    data: str | os.PathLike[str], *, channels: int = 3, progress: Progress | None = None
) -> tuple[CocoDataset, CocoDataset | None]:
    """The set to train on and, where there is one, the set to evaluate on, which has the first one's classes.

    `channels` are those that the network takes. Everything that can be wrong with the sets is found here: UsageError,
    InputError.
    """
    source = find_split(data, "train")
    train_set = _opened(source, None, channels, progress)
    val_source = find_splits(data).get("val")
    return train_set, None if val_source is None else _opened(val_source, train_set, channels, progress)


def notes_for_training(train_set: CocoDataset, val_set: CocoDataset | None) -> list[str]:
    """What is worth knowing before training starts, one line each."""
    lines = [*train_set.annotations.notes, *train_set.notes()]
    if val_set is None:
        lines.append(f"no validation split, so no AP, and the last epoch counts as the best; {SET_ASIDE}")
    else:
        lines += [f"validation: {note}" for note in val_set.annotations.notes]
        shared = len(_files(train_set) & _files(val_set))
        if shared:
            advice = f"; {SET_ASIDE}" if shared == len(val_set) == len(train_set) else ""
            lines.append(f"{shared:,} of the {len(val_set):,} validation images are training images too{advice}")
    return lines


def keep_pixels(place: str, sets: Sequence[CocoDataset]) -> None:
    """Let the sets keep the images that they have decoded, in `ram` or on `disk`; UsageError where there is no room."""
    places = kept(place, [dataset.annotations for dataset in sets], channels=sets[0].channels or 3)
    for dataset, pixels in zip(sets, places, strict=True):
        dataset.pixels = pixels


def _opened(source: Source, like: CocoDataset | None, channels: int, progress: Progress | None) -> CocoDataset:
    dataset = open_split(source, classes=like.classes if like else None).in_channels(channels)
    require_sound_images(dataset, progress=progress)
    return dataset


def _files(dataset: CocoDataset) -> set[tuple[str, str]]:
    folder = os.path.realpath(dataset.images)
    return {(folder, str(inside(name))) for name in dataset.annotations.file_names}
