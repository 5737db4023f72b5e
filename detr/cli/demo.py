"""`detr demo`: a detector at work, offline, in one command."""

from __future__ import annotations

from typing import Any

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import print_json
from detr.files import new_run


@click.command(cls=Verb, context_settings={"show_default": True})
@click.option("--images", default=500, type=click.IntRange(min=1), help="Images to measure on.")
@click.option("--train", "trains", is_flag=True, help="Train a model from scratch first and show its AP rise.")
@click.option("--train-images", default=800, type=click.IntRange(min=8), help="Images to train on, with --train.")
@click.option("--epochs", default=5, type=click.IntRange(min=1), help="Rounds of training, with --train.")
@flags.device
@flags.run("demo")
@flags.as_json("The numbers")
def command(
    images: int,
    trains: bool,
    train_images: int,
    name: str | None,
    project: str,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """See a detector at work, without a network or a GPU.

    Draws a data set and a video, measures the model that comes with the package (or, with --train, trains one from
    scratch first), finds the objects in the video, and writes a page with the pictures and the numbers.
    """
    from detr.engine.demo import run_demo
    from detr.runtime.device import choose_device

    choose_device(options["device"])
    out = new_run("demo", name, project=project, overwrite=overwrite)

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    demo = run_demo(out, images=images, train_images=train_images if trains else None, say=say, **options)
    if as_json:
        print_json(demo.to_json())
    say(f"done in {sum(demo.seconds.values()):.0f} s; look at {demo.page}")
