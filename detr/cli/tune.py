"""`detr tune`: search for the settings that train best."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import SEED, print_json, to_stderr, to_stdout
from detr.cli.stopping import Terminated
from detr.errors import InputError
from detr.extras import require
from detr.files import require_writable

if TYPE_CHECKING:
    from detr.tuning.search_space import Dimension
    from detr.tuning.tune import Tuned


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
@flags.side
@click.option("--seed", type=SEED, default=0, help="Of the search; all trainings have the recipe's.")
@flags.device
@flags.workers
@click.option(
    "--name", default="tune", callback=flags.named, help="Name of the search; one of that name is gone on with."
)
@click.option("--project", default="runs", help="Folder that holds the runs.")
@flags.as_json("What came of it")
def command(
    recipe: str,
    settings: tuple[str, ...],
    data: str,
    epochs: int | None,
    name: str,
    project: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Train RECIPE again and again with other settings, and write the recipe that gave the best AP.

    Trainings that are worse than most at the same epoch are stopped early. Ctrl-C stops the search; the same command
    goes on with it. Everything is in PROJECT/tune/NAME: best.yaml, trials.csv, each training's folder.

    \b
      detr tune rtdetr-r18 --data my-data --finetune --epochs 6 \\
        --search train.optimizer.lr=1e-5..1e-3:log --search augment.flip=0,0.5
    """
    from detr.tuning.search_space import read_space
    from detr.tuning.tune import BEST_RECIPE
    from detr.weights import require_weights

    require("tune", "tuning")
    if options["weights"] is not None:
        require_weights(options["weights"])
    words = [*settings] if epochs is None else [*settings, f"train.epochs={epochs}"]
    space = read_space(options["searched"])
    length = _checked(recipe, words, space, **options)
    folder = Path(project) / "tune" / name
    require_writable(folder)
    say = to_stderr if as_json else to_stdout
    try:
        found = _found(space, folder, recipe, words, data, length, say, **options)
    except (KeyboardInterrupt, Terminated):
        say(f"stopped; the same command goes on with {folder}")
        raise
    say(found.table)
    if found.best is None:
        raise InputError(f"no trial came to its end; what they said is in {folder}")
    best = str(folder / BEST_RECIPE)
    start = "" if options["weights"] is None else f" --weights {shlex.quote(options['weights'])}"
    say(f"best AP {found.best_ap:.4f}: {' '.join(found.best_words)}")
    say(f"  detr train {shlex.quote(best)} --data {shlex.quote(data)}{start}")
    if as_json:
        about = {"trial": found.best, "AP": found.best_ap, "settings": found.best_words}
        print_json({"folder": str(folder), "recipe": best, **about})


def _checked(
    recipe: str, words: list[str], space: list[Dimension], *, finetune: bool, imgsz: int | None, **_: Any
) -> int:
    """The epochs of a training; UsageError where one of them could not begin, with a value at either end."""
    from detr.training.recipe import at_size, load_recipe

    plain = load_recipe(recipe, words, finetune=finetune)
    if imgsz is not None:
        at_size(plain, imgsz)
    for dimension in space:
        for end in dimension.ends():
            load_recipe(recipe, [*words, end], finetune=finetune)
    return plain.train.epochs


def _found(
    space: list[Dimension],
    folder: Path,
    recipe: str,
    words: list[str],
    data: str,
    epochs: int,
    say: Callable[[str], None],
    **options: Any,
) -> Tuned:
    from detr.tuning.trial import TrainingProcess
    from detr.tuning.tune import tune

    same = {f"--{key}": options[key] for key in ("weights", "imgsz")}
    given = [recipe, *words, *(["--finetune"] if options["finetune"] else [])]
    for flag, value in {"--data": data, **same, "--device": options["device"], "--workers": options["workers"]}.items():
        given += [] if value is None else [flag, str(value)]
    search = {"recipe": recipe, "settings": words, "search": list(options["searched"])}
    return tune(
        space,
        lambda number, chosen: TrainingProcess([*given, *chosen], project=folder, name=f"trial-{number:03d}"),
        folder=folder,
        about={**search, "--finetune": options["finetune"], "--data": os.path.abspath(data), **same},
        trials=options["trials"],
        epochs=epochs,
        seed=options["seed"],
        say=say,
    )
