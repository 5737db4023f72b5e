"""Options that several commands have, each said once: `@flags.model`, `@flags.run("val")`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from detr.cli.plain import sides, threshold
from detr.errors import counted
from detr.files import run_name

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Gives a command several options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def named(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """A --name is looked at before any work."""
    return None if name is None else run_name(name)


model = click.option("--model", help="The preset, where a file of weights doesn't say what it is.")
parts = together(
    click.option("--layers", type=click.IntRange(min=1), help="Decoder layers that run: fewer are faster."),
    click.option("--queries", type=click.IntRange(min=1), help="Queries that run: fewer are faster."),
)
half = click.option("--half", is_flag=True, help="Compute in 16 bits: float16 on a GPU, bfloat16 on the CPU.")
device = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
devices = click.option(
    "--device", default="auto", help="auto, cpu, cuda, cuda:N, mps; 0,1 (GPUs) or cpu:2: so many processes."
)
split = together(
    click.option("--images", type=click.Path(path_type=Path), help="Image folder, where --data is an annotation file."),
    click.option("--split", default="val", help="train, val or test."),
)
images = click.option("--images", type=click.Path(path_type=Path), help="Image folder of a single annotation file.")
workers = click.option(
    "--workers",
    type=click.IntRange(0, 1000),
    callback=lambda context, option, value: _workers(value),
    help="Loader processes.  [default: the cores, at most 8]",
)
imgsz = click.option(
    "--imgsz",
    metavar="N|H,W",
    help="Size of the input, multiples of 32; where it keeps the aspect, the shorter side.  [default: the model's]",
)
side = click.option(
    "--imgsz",
    type=click.IntRange(min=32),
    help="Side of the input, a multiple of 32; where it keeps the aspect, the shorter one.  [default: the model's]",
)
quiet = click.option("--quiet", is_flag=True, help="No progress bar, and no line for each source.")


def run(verb: str, *, default: str | None = None) -> Decorator[Any]:
    """--name, --project and --overwrite: the folder of a run. `default`: its name, where that isn't the verb's."""
    return together(
        click.option(
            "--name", callback=named, help=f"Name of the run.  [default: {default or f'{verb}, {verb}-2, ...'}]"
        ),
        click.option("--project", default="runs", help="Folder that holds the runs."),
        click.option("--overwrite", is_flag=True, help="Allow a folder that holds a run already."),
    )


def as_json(what: str) -> Decorator[Any]:
    """--json, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=f"{what} as JSON on stdout, all else on stderr.")


def detections(*, max_det: int) -> Decorator[Any]:
    """--conf, --classes and --max-det: what is kept of what is found."""
    return together(
        click.option(
            "--conf",
            "--threshold",
            default="0.25",
            help="Leave out detections scored below, from 0 to 1; or thresholds.json.",
        ),
        click.option(
            "--classes", multiple=True, metavar="NAME|N", help="Only these classes; several with commas or repeated."
        ),
        click.option(
            "--max-det", type=click.IntRange(min=1), default=max_det, help="At most so many detections per picture."
        ),
    )


def asked(
    conf: str, classes: tuple[str, ...], max_det: int, imgsz: str | None, half: bool, **others: Any
) -> dict[str, Any]:
    """What those and --imgsz and --half say, as `Detector.settings` takes it; UsageError for what makes no sense."""
    return {
        "conf": threshold("--conf", conf),
        "classes": classes or None,
        "max_det": max_det,
        "imgsz": None if imgsz is None else sides(imgsz),
        "half": half,
    }


def _workers(number: int | None) -> int | None:
    """As asked, and a word where that is more than helps."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if number is not None and number > 2 * cores:
        click.echo(f"warning: --workers {number}: {counted(cores, 'core')} here; more processes only wait", err=True)
    return number
