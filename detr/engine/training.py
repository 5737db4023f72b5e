"""`Detector.train`: the recipe that a detector's weights go on with, and the run that it makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr.data.opening import open_for_training
from detr.errors import UsageError
from detr.files import new_run
from detr.models.inspection import preset_of
from detr.training import train as program
from detr.training.recipe import Recipe, load_recipe
from detr.weights import RELEASES

if TYPE_CHECKING:
    from detr.engine.finder import Finder


def recipe_for(
    finder: Finder, recipe: str | os.PathLike[str] | None, words: Sequence[str], *, finetune: bool
) -> Recipe:
    """The one that is asked for, or the usual one of the weights, with the settings that `words` say."""
    return load_recipe(usual_recipe(finder) if recipe is None else recipe, words, finetune=finetune)


def usual_recipe(finder: Finder) -> str:
    """That of the preset or release; of a training run, its own; of another file, that of the model it holds."""
    if finder.model is not None:
        return finder.model
    if (release := RELEASES.get(finder.source)) and release.model:
        return release.model
    beside = Path(finder.source).with_name("recipe.yaml")
    if beside.is_file():
        return str(beside)
    if (name := preset_of(finder.network)) is None:
        raise UsageError(f"which recipe? {finder.source} does not say; pass one such as recipe='rtdetr-r18'")
    return name


def train_from(
    finder: Finder,
    recipe: Recipe,
    data: str | os.PathLike[str],
    *,
    name: str | None,
    project: str | os.PathLike[str],
    overwrite: bool,
    workers: int | None,
    say: Callable[[str], None],
) -> program.Summary:
    """A new run that begins with the finder's weights, in `project/train/name`; the data is looked at before."""
    train_set, val_set = open_for_training(data, channels=recipe.model.input.channels)
    return program.train(
        recipe,
        train_set=train_set,
        val_set=val_set,
        out=new_run("train", name, project=project, overwrite=overwrite),
        weights=finder.source,
        device=str(finder.device),
        workers=workers,
        say=say,
    )
