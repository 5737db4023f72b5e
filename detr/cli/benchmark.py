"""`detr benchmark`: how fast a model is on this machine, and what accuracy that buys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.errors import UsageError
from detr.files import new_run, removed_if_empty, write_text

if TYPE_CHECKING:
    from detr.data.coco import CocoDataset
    from detr.engine.benchmark import Point
    from detr.models import Network


@click.command(context_settings={"show_default": True})
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--model", help="Preset of a file of weights that doesn't say what it is.")
@click.option("--layers", metavar="N,...", help="Decoder layers that run; several to compare.  [default: the model's]")
@click.option("--queries", metavar="K,...", help="Queries that run; several to compare.  [default: the model's]")
@click.option("--sweep", metavar="KNOBS", help="layers, queries, or layers,queries: measure over their range.")
@click.option("--data", type=click.Path(path_type=Path), help="Measure AP too: a folder, annotation file, or YAML.")
@click.option("--images", type=click.Path(path_type=Path), help="Image folder, where --data is an annotation file.")
@click.option("--split", default="val", help="train, val or test.")
@click.option("--batch", default=1, type=click.IntRange(min=1), help="Images at once.")
@click.option(
    "--imgsz", type=click.IntRange(min=32), help="Side of the input, or the shorter one.  [default: the model's]"
)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Loader processes of --data.  [default: the cores, at most 8]"
)
@click.option("--half", is_flag=True, help="Compute in 16 bits: float16 on a GPU, bfloat16 on the CPU.")
@click.option("--warmup", default=5, type=click.IntRange(min=0), help="Runs that don't count.")
@click.option("--seconds", default=3.0, type=click.FloatRange(min=0), help="Of runs that do, ten at least.")
@click.option(
    "--name", help="Name of the run, which keeps its numbers.  [default: benchmark, ... of a sweep, else none]"
)
@click.option("--project", default="runs", help="Folder that holds the runs.")
@click.option("--overwrite", is_flag=True, help="Allow a folder that holds a run already.")
@click.option("--json", "as_json", is_flag=True, help="All numbers as JSON on stdout, all else on stderr.")
def command(names: tuple[str, ...], sweep: str | None, name: str | None, as_json: bool, **options: Any) -> None:
    """Time each NAME: a preset, a release or a file of weights.

    A run goes from prepared images on the device to boxes in pixels; reading and preparing images is not in it. The
    network is folded (network.deploy()), which predict does not do. Without --data presets are built with fresh
    weights, as speed does not depend on them.

    \b
      detr benchmark rtdetr-r18 rtdetr-r50 --device cuda --half
      detr benchmark deimv2-atto --layers 1,2,3 --queries 50,100
      detr benchmark rtdetr-tiny --sweep layers,queries --data shapes
    """
    knobs = [word.strip() for word in (sweep or "").split(",") if word.strip()]
    options["layers"] = _counts("--layers", options["layers"])
    options["queries"] = _counts("--queries", options["queries"])
    if sweep is None and name is None:
        _benchmark(names, knobs, None, as_json, **options)
        return
    folder = new_run("benchmark", name, project=options["project"], overwrite=options["overwrite"])
    with removed_if_empty(folder):
        _benchmark(names, knobs, folder, as_json, **options)


def _benchmark(names: tuple[str, ...], knobs: list[str], folder: Path | None, as_json: bool, **options: Any) -> None:
    from detr.engine.benchmark import Conditions, in_words, machine, measure, settings_to_measure, warning_of_load
    from detr.engine.device import choose_device
    from detr.engine.settings import input_of_size

    device = choose_device(options["device"])
    dataset = None if options["data"] is None else _dataset(**options)
    reports = []
    points: list[Point] = []
    for each in names:
        network = _network(each, options["model"], with_weights=dataset is not None).to(device).eval()
        conditions = Conditions(
            device,
            input_of_size(network.config.input, options["imgsz"]),
            batch=options["batch"],
            half=options["half"],
            warmup=options["warmup"],
            seconds=options["seconds"],
        )
        wanted = settings_to_measure(network, layers=options["layers"], queries=options["queries"], sweep=knobs)
        made_on = machine(conditions)
        click.echo(f"{each} on {in_words(made_on)}", err=as_json)
        if busy := warning_of_load(made_on):
            click.echo(busy, err=True)
        if not as_json:
            click.echo(_HEAD)
        own = []
        for layers, queries in wanted:
            point = measure(
                network,
                each,
                conditions,
                layers=layers,
                queries=queries,
                dataset=dataset,
                workers=options["workers"],
            )
            click.echo(_line(point), err=as_json)
            own.append(point)
        points += own
        reports.append({"name": each, "machine": made_on, "points": [point.to_json() for point in own]})
    report = {"data": None if options["data"] is None else str(options["data"]), "models": reports}
    if as_json:
        click.echo(json.dumps(report, allow_nan=False))
    if folder is not None:
        _keep(folder, report, points)


def _network(name: str, model: str | None, *, with_weights: bool) -> Network:
    from detr.models import build_model, load_model, models

    return build_model(name) if name in models() and not with_weights else load_model(name, model)


def _dataset(data: Path, split: str, images: Path | None, **_: Any) -> CocoDataset:
    from detr.data.coco import CocoDataset, read_annotations
    from detr.data.sources import find_split

    source = find_split(data, split, images=images)
    return CocoDataset(read_annotations(source.annotations), source.images)


def _keep(folder: Path, report: dict[str, Any], points: list[Point]) -> None:
    from detr.engine import plots

    write_text(folder / "benchmark.json", json.dumps(report, indent=2) + "\n")
    files = "benchmark.json"
    if any(point.ap is not None for point in points) and plots.available():
        plots.draw_tradeoff([point.to_json() for point in points], folder / "benchmark.png")
        files = "benchmark.json, benchmark.png"
    click.echo(f"{folder}: {files}", err=True)


_HEAD = f"{'layers':>6} {'queries':>7} {'GFLOPs':>8} {'median ms':>10} {'p95 ms':>9} {'images/s':>9} {'AP':>6}"


def _line(point: Point) -> str:
    ap = "-" if point.ap is None else f"{point.ap:.1f}"
    return (
        f"{point.layers:>6} {point.queries:>7} {point.gflops:>8.1f} {point.median:>10.2f} {point.p95:>9.2f} "
        f"{point.images_per_second:>9.1f} {ap:>6}"
    )


def _counts(flag: str, text: str | None) -> list[int]:
    """`3,4,6` -> those numbers, all at least 1."""
    words = [] if text is None else text.split(",")
    if not all(word.strip().isdecimal() and int(word) >= 1 for word in words):
        raise UsageError(f"{flag} {text}: expected whole numbers from 1, such as 4 or 2,4,6")
    return [int(word) for word in words]
