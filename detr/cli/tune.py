"""`detr tune`: search for the settings that train best."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import SEED, WORKERS, to_stderr, to_stdout
from detr.cli.stopping import Terminated
from detr.errors import InputError
from detr.extras import require
from detr.files import require_writable


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("recipe")
@click.argument("settings", nargs=-1, metavar="[key=value ...]")
@click.option("--data", type=click.Path(), required=True, help="Data set with a val split, as for detr train.")
@click.option(
    "--search", "searched", multiple=True, metavar="key=SPACE",
    help="A setting to search: LOW..HIGH, LOW..HIGH:log, or values with commas. May be given several times.",
)  # fmt: skip
@click.option("--trials", type=click.IntRange(min=1), default=20, help="Trainings, those of before included.")
@click.option("--weights", help="Release or file that each training starts from.")
@click.option("--finetune", is_flag=True, help="Schedule and augmentation for a small data set.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of each training.  [default: the recipe's]")
@click.option("--imgsz", type=click.IntRange(min=32), help="Side of the input, a multiple of 32.")
@click.option("--seed", type=SEED, default=0, help="Of the search; all trainings have the recipe's.")
@flags.device
@click.option("--workers", type=WORKERS, help="Loader processes.  [default: the cores, at most 8]")
@click.option(
    "--name", default="tune", callback=flags.named, help="Name of the search; one of that name is gone on with."
)
@click.option("--project", default="runs", help="Folder that holds the runs.")
@flags.as_json("What came of it")
def command(
    recipe: str,
    settings: tuple[str, ...],
    data: str,
    searched: tuple[str, ...],
    trials: int,
    weights: str | None,
    finetune: bool,
    epochs: int | None,
    imgsz: int | None,
    seed: int,
    device: str,
    workers: int | None,
    name: str,
    project: str,
    as_json: bool,
) -> None:
    """Train RECIPE again and again with other settings, and write the recipe that gave the best AP.

    Trainings that are worse than most at the same epoch are stopped early. Ctrl-C stops the search; the same command
    goes on with it. Everything is in PROJECT/tune/NAME: best.yaml, trials.csv, each training's folder.

    \b
      detr tune rtdetr-r18 --data my-data --finetune --epochs 6 \\
        --search train.optimizer.lr=1e-5..1e-3:log --search augment.flip=0,0.5
    """
    from detr.training.recipe import at_size, load_recipe
    from detr.tuning.search_space import read_space
    from detr.tuning.trial import TrainingProcess
    from detr.tuning.tune import BEST_RECIPE, tune
    from detr.weights import require_weights

    say = to_stderr if as_json else to_stdout
    require("tune", "tuning")
    if weights is not None:
        require_weights(weights)
    space = read_space(searched)
    words = [*settings] if epochs is None else [*settings, f"train.epochs={epochs}"]
    plain = load_recipe(recipe, words, finetune=finetune)
    if imgsz is not None:
        at_size(plain, imgsz)
    for dimension in space:
        for end in dimension.ends():
            load_recipe(recipe, [*words, end], finetune=finetune)
    folder = Path(project) / "tune" / name
    require_writable(folder)

    options = {"--data": data, "--weights": weights, "--imgsz": imgsz, "--device": device, "--workers": workers}
    given = [recipe, *words, *(["--finetune"] if finetune else [])]
    for option, value in options.items():
        given += [] if value is None else [option, str(value)]
    try:
        found = tune(
            space,
            lambda number, chosen: TrainingProcess([*given, *chosen], project=folder, name=f"trial-{number:03d}"),
            folder=folder,
            about={
                "recipe": recipe, "settings": words, "search": list(searched), "--finetune": finetune,
                "--data": os.path.abspath(data), "--weights": weights, "--imgsz": imgsz,
            },
            trials=trials,
            epochs=plain.train.epochs,
            seed=seed,
            say=say,
        )  # fmt: skip
    except (KeyboardInterrupt, Terminated):
        say(f"stopped; the same command goes on with {folder}")
        raise
    say(found.table)
    if found.best is None:
        raise InputError(f"no trial came to its end; what they said is in {folder}")
    best = shlex.quote(str(folder / BEST_RECIPE))
    start = "" if weights is None else f" --weights {shlex.quote(weights)}"
    say(
        f"best AP {found.best_ap:.4f}: {' '.join(found.best_words)}\n"
        f"  detr train {best} --data {shlex.quote(data)}{start}"
    )
    if as_json:
        recipe_file = {"folder": str(folder), "recipe": str(folder / BEST_RECIPE)}
        click.echo(json.dumps({**recipe_file, "trial": found.best, "AP": found.best_ap, "settings": found.best_words}))
