"""`detr train`: a recipe and a data set make a folder with weights, journal and pictures."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.going_on import RECIPE, may_start_again, remembered, saved_before, started_again
from detr.cli.help import Verb
from detr.cli.launching import leave_to_processes
from detr.cli.plain import print_json, to_stdout
from detr.errors import UsageError, counted
from detr.files import new_run, removed_if_empty

if TYPE_CHECKING:
    from detr.data.coco import CocoDataset
    from detr.runtime.distributed import Team
    from detr.training.recipe import Recipe
    from detr.training.run import Say
    from detr.training.train import Summary

BEST = "best.safetensors"  # as in detr.training.saved.checkpoint, which would load torch
AUTO = "auto"


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("recipe", required=False)
@click.argument("settings", nargs=-1, metavar="[key=value ...]")
@click.option(
    "--data",
    type=click.Path(),
    help="Data set: a folder, an annotation file, or a YAML with train and val.  [default: with --resume, the run's]",
)
@click.option("--weights", help="Release or file to start from, a backbone's too; classes are matched by name.")
@click.option("--finetune", is_flag=True, help="Schedule and augmentation for a small data set; 12 epochs unless said.")
@click.option("--resume", type=click.Path(path_type=Path), help="Folder of a run to go on with, exactly.")
@click.option("--check", is_flag=True, help="With --resume: only prove, on a few steps, that it goes on bit by bit.")
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    help="Only take a step again that diverged: the run's folder, or its file.",
)
@click.option("--allow-changes", is_flag=True, help="Resume although the data or the recipe changed since.")
@click.option(
    "--save-every",
    metavar="TIME|STEPS",
    help="Pace of the states saved within an epoch: 10m, 90s, 200 (steps), 0 (only after epochs).  [default: 10m]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="[default: the recipe's]")
@click.option(
    "--batch",
    metavar="N|auto",
    callback=lambda context, option, value: _batch(value),
    help="Images of one step, over all processes; auto: as many as fit in memory.  [default: the recipe's]",
)
@click.option("--accumulate", type=click.IntRange(min=1), help="Pieces to compute a batch in, when memory is short.")
@flags.side
@click.option(
    "--amp", type=click.Choice(["off", "auto", "bf16", "fp16"]), help="Mixed precision.  [default: the recipe's]"
)
@click.option(
    "--teacher",
    callback=lambda context, option, value: os.path.abspath(value) if value and os.path.exists(value) else value,
    help="Release or file of a larger model to learn from beside the boxes.",
)
@click.option("--freeze", help="nothing, stem, stage1, stage2, stage3, backbone, or 'all but heads'.")
@click.option(
    "--patience", type=click.IntRange(min=0), help="Evaluations without a better AP until it stops; 0: never."
)
@click.option("--seed", type=click.IntRange(min=0), help="[default: the recipe's]")
@click.option("--deterministic", is_flag=True, default=None, help="Only algorithms that give the same bits each time.")
@click.option("--compile", is_flag=True, default=None, help="Compile backbone and encoder: minutes first, then faster.")
@flags.devices
@flags.workers
@click.option("--cache", type=click.Choice(["ram", "disk"]), help="Keep the decoded images for the next epochs.")
@click.option(
    "--log",
    metavar="NAME,...",
    help="Where else it is written: tensorboard, wandb, mlflow, or none.  [default: tensorboard where installed]",
)
@flags.run("train")
@flags.as_json("The summary")
def command(
    recipe: str | None,
    settings: tuple[str, ...],
    data: str | None,
    replay: Path | None,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Train RECIPE (a name such as rtdetr-r18, or a YAML file) on --data.

    Words such as train.epochs=12 or augment.flip=0 change single settings of the recipe. With --resume the run's own
    recipe is taken where none is given. Several GPUs: --device 0,1, or torchrun --nproc-per-node N -m detr train ...;
    with its --max-restarts a --name is needed, and a training that lost a process goes on with what it saved.

    \b
      detr train rtdetr-tiny --data shapes
      detr train rtdetr-r18 --data my-data --weights rtdetr-r18 --finetune
      detr train rtdetr-r18 --data coco --weights resnet18-vd
      detr train --resume runs/train/train
    """
    if replay is not None:
        if recipe or data or options["weights"] or options["resume"]:
            raise UsageError("--replay takes all it needs from its file; leave out recipe, --data, --weights, --resume")
        return _replay(replay, device)
    words = [*settings, *_as_words(options)]
    if recipe is not None and "=" in recipe:  # with --resume the recipe may be left out
        words, recipe = [recipe, *words], None
    _require_sense(**options)
    before = remembered(options["resume"])
    data = data or before
    if data is None:
        near = next((f"; did you mean --data {word}?" for word in words if os.path.exists(word)), "")
        raise UsageError(f"train needs --data: a folder, an annotation file, or a YAML with train and val{near}")
    if recipe is None and options["resume"] is None:
        raise UsageError("which recipe? Such as: detr train rtdetr-r18 --data ...; `detr models` lists them")

    from detr.runtime.device import choose_device
    from detr.runtime.distributed import joined
    from detr.training.saved.pace import pace
    from detr.training.told.loggers import chosen_logs
    from detr.weights import require_weights

    for file in filter(None, (options["weights"], options["teacher"])):
        require_weights(file)
    options["log"] = chosen_logs(options["log"])
    options["save_every"] = None if options["save_every"] is None else pace(options["save_every"])
    leave_to_processes(device)
    with joined(choose_device(device)) as team:

        def say(line: str) -> None:
            if team.leads:
                to_stdout(line, err=as_json)

        task = _task(recipe, words, data, team, say, **options)
        if options["check"]:
            return say(_proof(task, say, device, **options))
        result = _trained(task, team, say, device, **options)
        say(_conclusion(result, data))
        if as_json and team.leads:
            print_json(result.to_json())


@dataclass(frozen=True)
class _Task:
    """What is to be learned, and from what."""

    recipe: Recipe
    data: str
    train_set: CocoDataset
    val_set: CocoDataset | None


def _require_sense(**options: Any) -> None:
    """UsageError for options that don't go together."""
    resume = options["resume"]
    if resume is None and (options["allow_changes"] or options["check"]):
        raise UsageError("--check and --allow-changes are about a run to go on with: --resume RUN")
    if resume is not None and (options["weights"] or options["name"] or options["finetune"]):
        raise UsageError("--resume goes on with a run as it is; --weights, --finetune and --name belong to a new one")
    if resume is not None and options["batch"] == AUTO:
        raise UsageError(f"--batch {AUTO} is for a new run; one that goes on keeps its batch")
    if resume is None and options["name"] is None and may_start_again():
        raise UsageError("torchrun --max-restarts needs --name: who is started anew must know the run to go on with")


def _task(recipe: str | None, words: list[str], data: str, team: Team, say: Say, **options: Any) -> _Task:
    from detr.data.opening import keep_pixels, open_for_training
    from detr.runtime.progress import progress, told_if_long

    asked = {name: options[name] for name in ("resume", "imgsz", "finetune")}
    chosen = _recipe(recipe, words, **asked)
    with told_if_long(f"reading {data}", quiet=not team.leads):
        train_set, val_set = open_for_training(data, channels=chosen.model.input.channels, progress=progress)
    if options["cache"] is not None:
        keep_pixels(options["cache"], [each for each in (train_set, val_set) if each is not None])
    if options["batch"] == AUTO:
        chosen = _recipe(recipe, [*words, f"train.batch={_automatic_batch(chosen, train_set, team, say)}"], **asked)
    return _Task(chosen, data, train_set, val_set)


def _proof(task: _Task, say: Say, device: str, **options: Any) -> str:
    """What a few steps, taken again, show of the run that is gone on with."""
    from detr.training.repeating import repeat

    proof = repeat(
        task.recipe,
        train_set=task.train_set,
        val_set=task.val_set,
        out=options["resume"],
        device=device,
        workers=options["workers"],
        allow_changes=options["allow_changes"],
        say=say,
    )
    return proof.text


def _trained(task: _Task, team: Team, say: Say, device: str, **options: Any) -> Summary:
    """A new run, or one that goes on: with --resume, or because torchrun started it anew."""
    from detr.training.train import train

    again = None if options["resume"] else started_again(options["name"], options["project"])
    going_on = options["resume"] or saved_before(again)
    anew = options["overwrite"] or again is not None
    out = team.agreed(lambda: going_on or new_run("train", options["name"], project=options["project"], overwrite=anew))
    with removed_if_empty(out):
        return train(
            task.recipe,
            train_set=task.train_set,
            val_set=task.val_set,
            out=out,
            data=os.path.abspath(task.data) if os.path.exists(task.data) else task.data,
            resume=going_on is not None,
            device=device,
            say=say,
            **{name: options[name] for name in ("weights", "allow_changes", "save_every", "log", "workers")},
        )


_PLACES = {
    "epochs": "train.epochs",
    "batch": "train.batch",
    "accumulate": "train.accumulate",
    "amp": "train.amp",
    "teacher": "train.teacher.weights",
    "freeze": "train.freeze",
    "patience": "train.patience",
    "seed": "train.seed",
    "deterministic": "train.deterministic",
    "compile": "train.compile",
}


def _batch(value: str | None) -> int | str | None:
    if value is None or value == AUTO:
        return value
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--batch {value}: expected a whole number from 1, or {AUTO}")
    return int(value)


def _automatic_batch(recipe: Recipe, train_set: CocoDataset, team: Team, say: Say) -> int:
    from detr.training.auto_batch import choose_batch

    if team.size > 1:
        raise UsageError(f"--batch {AUTO} tries batches in one process; with {team.size}, say --batch")
    chosen = choose_batch(recipe, train_set, team.device)
    say(chosen.text)
    return chosen.batch


def _replay(path: Path, device: str) -> None:
    from detr.runtime.device import choose_device
    from detr.training.replay import FILE, replay

    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"--replay {path}: no such file; a training that diverges leaves {FILE} in its folder")
    click.echo(replay(file, device=choose_device(device)).text)


def _as_words(options: dict[str, Any]) -> list[str]:
    """Options as `key.sub=value` words; JSON is YAML, so that `off` stays a word. `auto` is no batch yet."""
    given = {key: options[key] for key in _PLACES if key in options and (key, options[key]) != ("batch", AUTO)}
    return [f"{_PLACES[key]}={json.dumps(value)}" for key, value in given.items() if value is not None]


def _recipe(
    name: str | None, words: Sequence[str], *, resume: Path | None, imgsz: int | None, finetune: bool
) -> Recipe:
    from detr.training.recipe import at_size, load_recipe

    if name is None:
        assert resume is not None
        name = str(resume / RECIPE)
    recipe = load_recipe(name, words, finetune=finetune)
    return recipe if imgsz is None else at_size(recipe, imgsz)


def _conclusion(result: Summary, data: str) -> str:
    from detr.training.words import in_words

    best = "" if result.best is None else f", best AP {result.best:.4f} in epoch {result.best_epoch}"
    file = shlex.quote(str(result.out / BEST))
    return (
        f"{counted(result.epochs, 'epoch')} in {in_words(result.seconds)}{best}; everything is in {result.out}\n"
        f"  detr val --weights {file} --data {shlex.quote(data)}\n"
        f"  detr predict SOURCE --weights {file}"
    )
