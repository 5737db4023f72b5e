from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detr.errors import InputError
from detr.runtime.distributed import Team
from detr.training.saved.checkpoint import Counters, Resumed
from detr.training.saved.circumstances import circumstances, differences, digest_of, require_unchanged

ALONE = Team(0, 1, torch.device("cpu"))


@pytest.fixture
def around(small_sets):
    return circumstances(small_sets["train_set"], small_sets["val_set"], ALONE)


@pytest.fixture
def state(small_sets, recipe_with, around):
    """What a run of `recipe_with()` would have saved."""
    classes = small_sets["train_set"].classes
    return Resumed(
        Path("run/resume.safetensors"), {}, classes, Counters(), recipe_with().as_tree(), {"circumstances": around}
    )


def said_of(state, recipe, now, *, allow=False):
    lines = []
    require_unchanged(state, recipe, now, allow=allow, say=lines.append)
    return lines


def test_where_nothing_changed_nothing_is_said(state, recipe_with, around):
    assert said_of(state, recipe_with(), around) == []


@pytest.mark.parametrize("name", ["boxes", "labels", "areas", "image_indices", "heights", "widths", "crowd"])
def test_each_column_of_the_annotations_counts(small_sets, name):
    known = small_sets["train_set"].annotations
    column = getattr(known, name).copy()
    column.flat[0] = not column.flat[0] if name == "crowd" else column.flat[0] + 1
    assert digest_of(replace(known, **{name: column})) != digest_of(known)


def test_names_count_and_notes_do_not(small_sets):
    known = small_sets["train_set"].annotations
    assert digest_of(replace(known, file_names=("other.jpg", *known.file_names[1:]))) != digest_of(known)
    assert digest_of(replace(known, notes=("looked at twice",))) == digest_of(known)


def test_a_recipe_that_changed_is_refused_with_each_place(state, recipe_with, around):
    recipe = recipe_with(batch=4, seed=7)
    with pytest.raises(InputError, match=r"train\.seed was 0, is 7") as refused:
        said_of(state, recipe, around)
    assert "train.batch was 2, is 4" in str(refused.value) and "--allow-changes" in str(refused.value)
    assert len(said_of(state, recipe, around, allow=True)) == 2


def test_many_changes_are_counted(state, recipe_with, around):
    recipe = recipe_with(batch=4, seed=7, clip=0.5, evaluate_every=3, accumulate=2)
    with pytest.raises(InputError, match=r"\(and 2 more changes\)"):
        said_of(state, recipe, around)


def test_when_to_stop_may_change(state, recipe_with, around):
    lines = said_of(state, recipe_with(epochs=9, patience=4), around)
    assert "note: train.epochs was 2, is 9" in lines and len(lines) == 2


def test_edited_annotations_are_refused(state, recipe_with, around):
    with pytest.raises(InputError, match="the val annotations were edited since"):
        said_of(state, recipe_with(), {**around, "val_data": "other"})


def test_another_machine_is_only_noted(state, recipe_with, around):
    lines = said_of(state, recipe_with(), {**around, "processes": 4, "device": "cuda"})
    assert lines == [
        "note: processes was 1, is 4: the last bits may differ from a run never stopped",
        "note: device was cpu, is cuda: the last bits may differ from a run never stopped",
    ]


def test_a_state_without_circumstances_is_taken(state, recipe_with, around):
    assert said_of(replace(state, extras={}), recipe_with(), around) == []


def test_differences_are_named_by_their_place():
    before = {"a": {"b": 1, "c": 2}, "gone": 3, "never": None}
    now = {"a": {"b": 1, "c": 5}, "new": [1], "nothing": None}
    assert list(differences(before, now)) == [("a.c", 2, 5), ("gone", 3, "unset"), ("new", "unset", [1])]
