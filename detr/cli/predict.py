"""`detr predict`: find objects in images, videos, cameras and streams."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.backend import backend_options, exported_runner
from detr.cli.help import Verb
from detr.cli.launching import leave_to_processes
from detr.cli.plain import print_json, raise_for, say_nothing, to_stderr, to_stdout
from detr.cli.slices import slice_options, slicing_asked
from detr.cli.tracking import as_videos, tracking_asked, tracking_options
from detr.errors import UsageError
from detr.extras import require
from detr.files import new_run, require_writable

if TYPE_CHECKING:
    from detr.engine.detector import Detector
    from detr.engine.predict import Summary
    from detr.engine.saving import Wanted
    from detr.engine.tracking import Tracking
    from detr.runtime.distributed import Team
    from detr.video import Source


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--weights",
    default="rtdetr-tiny",
    help="A release (see `detr weights list`), a file of weights, or an exported .onnx, .xml or .pt2.",
)
@flags.model
@flags.detections(max_det=300)
@click.option("--vid-stride", type=click.IntRange(min=1), default=1, help="Take every N-th frame of a video.")
@flags.imgsz
@flags.parts
@flags.devices
@flags.half
@click.option("--compile", is_flag=True, help="Compile the network first: a minute, then faster. For long videos.")
@backend_options
@click.option("--batch", type=click.IntRange(min=1), default=1, help="Pictures, or tiles, the network sees at once.")
@slice_options
@tracking_options
@click.option("--save-json", is_flag=True, help="Images: predictions.json, as COCO has it. Videos: NAME.jsonl.")
@click.option("--save-txt", is_flag=True, help="labels/*.txt, YOLO's lines, and classes.txt.")
@click.option("--save-conf", is_flag=True, help="Scores in those lines.")
@click.option("--save-crop", is_flag=True, help="What each box shows, as crops/CLASS/*.jpg.")
@click.option("--show", is_flag=True, help="A window with the pictures; Escape or q closes it.")
@click.option("--no-save", is_flag=True, help="No drawn pictures or videos.")
@click.option("--no-video", is_flag=True, help="No drawn videos.")
@click.option(
    "--line-width", type=click.IntRange(1, 1000), help="Of boxes, in pixels.  [default: by the picture's size]"
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first source that can't be read.")
@click.option("--iou", hidden=True, help="Accepted for the sake of old habits; there is no suppression to set.")
@flags.run("predict", default="predict, predict-2, ...; of tracks track, track-2, ...")
@flags.as_json("The summary")
@flags.quiet
def command(
    sources: tuple[str, ...],
    device: str,
    track: bool,
    iou: str | None,
    name: str | None,
    project: str,
    overwrite: bool,
    **options: Any,
) -> None:
    """Find objects in each SOURCE: an image, a video, a folder, a glob, a .txt list of them, a URL (http, https, rtsp),
    the number of a camera, or - for a stream on standard input.

    Drawn pictures and videos go to runs/predict/NAME. Sources that can't be read are listed at the end; the others are
    done all the same. torchrun --nproc-per-node N -m detr predict ... shares the sources out, and leaves the same.

    \b
      detr predict street.jpg walk.mp4
      detr predict "photos/*.jpg" --classes person,dog --save-json
      detr predict rtsp://camera.local/live --no-save --save-json
    """
    asked = _asked(options)
    tracking = tracking_asked(track, asked["conf"], options)
    if iou is not None:
        click.echo("--iou has no effect: the model gives each object once, and nothing is suppressed", err=True)

    from detr.runtime.device import choose_device
    from detr.runtime.distributed import joined
    from detr.video import find_sources

    found = find_sources(sources)
    if tracking is not None:
        found = as_videos(found, options["fps"])
        require("track", "tracking")
    leave_to_processes(device)
    team = click.get_current_context().with_resource(joined(choose_device(device)))
    if team.size > 1 and (options["show"] or any(source.kind == "pipe" for source in found)):
        raise UsageError("several processes can neither show pictures (--show) nor read one stream (-)")
    if len(found) < team.size and team.leads:
        to_stderr(f"note: {len(found)} of {team.size} processes have work, as a source is not divided")
    kind = "predict" if tracking is None else "track"
    folder = team.agreed(lambda: new_run(kind, name, project=project, overwrite=overwrite))
    require_writable(folder)
    try:
        detector = _detector(device if team.size == 1 else str(team.device), asked["imgsz"], **options)
        summary = _predicted(detector, found, folder, team, asked, tracking, **options)
    except BaseException as problem:
        _keep_or_remove(folder, problem)
        raise
    if team.leads:
        _report(summary, len(found), as_json=options["as_json"])


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """What `Detector.settings` takes, as far as the command line says it."""
    slicing = slicing_asked(options["tile"], options["overlap"], options["tiles_only"], batch=options["batch"])
    return {**flags.asked(**options), "slicing": slicing}


def _detector(device: str, size: tuple[int, ...] | None, weights: str, **options: Any) -> Detector:
    """The network as it is asked for, whoever runs it."""
    from detr.engine.detector import Detector

    network = {name: options[name] for name in ("model", "layers", "queries", "compile")} | {"device": device}
    way = {name: options[name] for name in ("backend", "int8", "calibrate", "half")}
    runner = exported_runner(weights, imgsz=size, **way, **network)
    return Detector(weights, **network) if runner is None else Detector(runner)


def _predicted(
    detector: Detector,
    found: list[Source],
    folder: Path,
    team: Team,
    asked: dict[str, Any],
    tracking: Tracking | None,
    **options: Any,
) -> Summary:
    """What all processes of the team did together."""
    from detr.engine.predict import predict
    from detr.engine.shares import put_together, share_of

    if tracking is not None:
        asked = {**asked, "conf": tracking.lowest}
    summary = predict(
        detector,
        share_of(found, rank=team.rank, of=team.size, batch=options["batch"]),
        detector.settings(**asked),
        folder,
        wanted=_wanted(**options),
        show=options["show"],
        stride=options["vid_stride"],
        batch=options["batch"],
        tracking=tracking,
        fail_fast=options["fail_fast"],
        quiet=options["quiet"] or not team.leads,
        say=say_nothing if options["quiet"] else to_stderr if options["as_json"] else to_stdout,
    )
    return put_together(summary, found, team, json=options["save_json"])


def _wanted(**options: Any) -> Wanted:
    """The files to leave."""
    from detr.engine.saving import Wanted

    return Wanted(
        images=not options["no_save"],
        videos=not (options["no_save"] or options["no_video"]),
        json=options["save_json"],
        txt=options["save_txt"],
        mot=options["save_mot"],
        crop=options["save_crop"],
        conf=options["save_conf"],
        line_width=options["line_width"],
    )


def _report(summary: Summary, num_sources: int, *, as_json: bool) -> None:
    """What was done and what was lost; InputError where a source failed."""
    for note in summary.notes:
        to_stderr(f"note: {note}")
    if as_json:
        print_json(summary.to_json())
    saved = any(summary.folder.iterdir())
    if summary.frames:
        click.echo(f"{summary.text}{f': {summary.folder}' if saved else ''}", err=as_json)
    if not saved:
        with suppress(OSError):
            summary.folder.rmdir()
    raise_for(summary.failures, num_sources)


def _keep_or_remove(folder: Path, problem: BaseException) -> None:
    """A folder with nothing in it goes; where there is something, whoever stopped us wants to know where."""
    try:
        folder.rmdir()
    except OSError:
        if not isinstance(problem, Exception):
            click.echo(f"stopped; what was done so far is in {folder}", err=True)
