"""What a training depends on besides its state: its data, its recipe, the machine; and what of it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from detr.config import validated
from detr.data.annotations import Annotations
from detr.data.coco import CocoDataset
from detr.errors import InputError, counted
from detr.runtime.distributed import Team
from detr.training.learning.teacher import TeacherConfig, digest_of_file
from detr.training.recipe import Recipe
from detr.training.saved.checkpoint import Resumed

FREE = ("train.epochs", "train.patience", "train.skip_at_most", "train.longest_wait")
"""Settings that say when to stop; changing them is what going on is often for."""


def circumstances(
    train_set: CocoDataset, val_set: CocoDataset | None, team: Team, teacher: TeacherConfig | None = None
) -> dict[str, Any]:
    """What the state of a run remembers of its surroundings."""
    return {
        "train_data": digest_of(train_set.annotations),
        "val_data": None if val_set is None else digest_of(val_set.annotations),
        "teacher": None if teacher is None else digest_of_file(teacher.weights),
        "processes": team.size,
        "device": team.device.type,
        "threads": torch.get_num_threads(),
        "PyTorch": torch.__version__,
    }


def digest_of(annotations: Annotations) -> str:
    """SHA-256 of the classes, the images' names, ids and sizes, and all boxes; notes apart."""
    sha = hashlib.sha256(repr((annotations.classes.to_json(), annotations.image_ids, annotations.file_names)).encode())
    for name in ("heights", "widths", "image_indices", "labels", "boxes", "areas", "crowd"):
        sha.update(getattr(annotations, name).tobytes())
    return sha.hexdigest()


def require_unchanged(
    state: Resumed, recipe: Recipe, now: Mapping[str, Any], *, allow: bool, say: Callable[[str], None]
) -> None:
    """Say what is other than when the state was saved; InputError if that is the data or the recipe, unless allowed."""
    before = state.extras.get("circumstances", {})
    changed = [
        f"the {split} annotations were edited since"
        for split in ("train", "val")
        if f"{split}_data" in before and before[f"{split}_data"] != now[f"{split}_data"]
    ]
    if before.get("teacher") and now["teacher"] and before["teacher"] != now["teacher"]:
        changed.append("the teacher's weights are others than then")
    theirs = validated(Recipe, state.recipe, str(state.path)).as_tree()  # with the settings that are new since
    for name, old, new in differences(theirs, recipe.as_tree()):
        if name in FREE:
            say(f"note: {name} was {old}, is {new}")
        else:
            changed.append(f"{name} was {old}, is {new}")
    if changed and not allow:
        more = f" (and {counted(len(changed) - 3, 'more change')})" if len(changed) > 3 else ""
        raise InputError(
            f"{state.path}: {'; '.join(changed[:3])}{more}; the run would not end as it began; "
            "undo that, or go on anyway with --allow-changes"
        )
    for line in changed:
        say(f"warning: {line}")
    for name in ("processes", "device", "threads", "PyTorch"):
        if name in before and before[name] != now[name]:
            say(f"note: {name} was {before[name]}, is {now[name]}: the last bits may differ from a run never stopped")


def differences(before: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(`key.sub`, value before, value now) wherever two trees differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if key not in before and now[key] is not None:
                yield f"{place}{key}", "unset", now[key]
            elif key not in now and before[key] is not None:
                yield f"{place}{key}", before[key], "unset"
            elif key in before and key in now:
                yield from differences(before[key], now[key], f"{place}{key}.")
    elif before != now:
        yield place.rstrip("."), before, now
