"""`detr explain`: what each box looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import box, print_json, raise_for, say_nothing, to_stderr, to_stdout
from detr.errors import UsageError
from detr.files import new_run, removed_if_empty, require_writable

if TYPE_CHECKING:
    from detr.engine.explained import Summary


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--weights", default="rtdetr-tiny", help="A release (see `detr weights list`), or a file of weights.")
@flags.model
@flags.detections(max_det=20)
@click.option("--every", type=click.IntRange(min=1), default=30, help="Take every N-th frame of a video.")
@click.option("--layer", type=click.IntRange(min=1), help="Decoder layer that pictures show.  [default: all, the mean]")
@click.option("--head", type=click.IntRange(min=1), help="Attention head that pictures show.  [default: all, the mean]")
@click.option(
    "--at",
    metavar="X1,Y1,X2,Y2",
    callback=lambda context, option, text: None if text is None else box("--at", text),
    help="Why is there no box? Ask a place, in pixels or shares of the picture from 0 to 1.",
)
@click.option("--faithful", is_flag=True, help="Hide what was looked at, and as much elsewhere: what costs more?")
@flags.imgsz
@flags.parts
@flags.device
@flags.half
@flags.run("explain")
@flags.as_json("The summary")
@flags.quiet
def command(sources: tuple[str, ...], weights: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Show what each detection in SOURCE looked at: images, videos, folders and whatever else `detr predict` takes.

    Detections are those of `detr predict`. For each: the points or the attention map of every decoder layer and head,
    how the box moved from layer to layer, the position of the encoder that proposed it, and for D-FINE and DEIMv2 how
    sure it is of each side. In runs/explain/NAME are a page to click through (index.html, works offline), pictures, and
    all numbers as JSON; of a video a drawn one. With --faithful the maps are put to the test: each picture goes through
    the network seven times for each detection, with other parts of it hidden. --at asks about a place that has no box:
    whether no query started there, none ended there, or it was scored too low or taken for something else.

    \b
      detr explain street.jpg
      detr explain photos/ --weights deimv2-atto --classes person --layer 3
      detr explain walk.mp4 --every 5
      detr explain street.jpg --at 410,220,530,300 --classes car
    """
    asked = flags.asked(**options)
    from detr.engine.detector import Detector
    from detr.engine.explained import explain_sources
    from detr.export import is_exported
    from detr.runtime.device import choose_device
    from detr.video import find_sources

    if is_exported(weights):
        raise UsageError(f"{weights} gives its answer only; explain the weights that it was exported from")
    found = find_sources(sources)
    choose_device(options["device"])
    folder = new_run("explain", options["name"], project=options["project"], overwrite=options["overwrite"])
    require_writable(folder)
    with removed_if_empty(folder):
        detector = Detector(weights, **{name: options[name] for name in ("model", "device", "layers", "queries")})
        counted = {name: options[name] for name in ("layer", "head")}
        _require_there(detector.network, **counted)
        summary = explain_sources(
            detector,
            found,
            detector.settings(**asked),
            folder,
            every=options["every"],
            faithful=options["faithful"],
            at=options["at"],
            quiet=quiet,
            say=say_nothing if quiet else to_stderr if as_json else to_stdout,
            **{name: None if number is None else number - 1 for name, number in counted.items()},
        )
    _report(summary, len(found), as_json=as_json)


def _require_there(network: Any, layer: int | None, head: int | None) -> None:
    """UsageError for a layer or head that the decoder doesn't have."""
    counts = {
        "layer": (layer, network.decoder.eval_layers),
        "head": (head, network.decoder.layers[0].cross_attention.heads),
    }
    for what, (given, count) in counts.items():
        if given is not None and given > count:
            raise UsageError(f"--{what} {given}: this model's decoder has {count} {what}s")


def _report(summary: Summary, num_sources: int, *, as_json: bool) -> None:
    """What was done and what was lost; InputError where a source failed."""
    for note in summary.notes:
        to_stderr(f"note: {note}")
    if as_json:
        print_json(summary.to_json())
    if summary.frames:
        click.echo(f"{summary.text}; look at {summary.page}", err=as_json)
    elif not any(Path(summary.folder).iterdir()):
        summary.folder.rmdir()
    raise_for(summary.failures, num_sources)
