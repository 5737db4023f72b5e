"""`detr benchmark`: how fast models are on this machine, and what accuracy that buys."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from detr.cli import flags
from detr.cli.benchmark_file import cases_of_file
from detr.cli.help import Verb
from detr.cli.plain import Finite, print_json
from detr.errors import UsageError
from detr.files import new_run, removed_if_empty, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detr.data.coco import CocoDataset
    from detr.engine.benchmark import Case, Point
    from detr.image import InputConfig
    from detr.models import Network
    from detr.runtime.runner import Runner

BACKENDS = ("torch", "onnx", "openvino")


class Way(NamedTuple):
    """Which program runs the network, and how."""

    backend: str
    half: bool = False
    compile: bool = False
    int8: bool = False


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@flags.model
@click.option("--backend", default="torch", metavar="NAME,...", help="torch, onnx, openvino; several to compare.")
@click.option("--half", is_flag=True, help="Also in 16 bits: float16 on a GPU, bfloat16 on the CPU.")
@click.option("--compile", is_flag=True, help="Also compiled by torch.compile, where the backend is torch.")
@click.option("--int8", is_flag=True, help="Also in 8 bits, where the backend is onnx or openvino.")
@click.option("--calibrate", metavar="DATA", help="Data set whose images --int8 is fitted to.")
@click.option("--layers", metavar="N,...", help="Decoder layers that run; several to compare.  [default: the model's]")
@click.option("--queries", metavar="K,...", help="Queries that run; several to compare.  [default: the model's]")
@click.option("--sweep", metavar="KNOBS", help="layers, queries, or layers,queries: measure over their range.")
@click.option("--data", type=click.Path(path_type=Path), help="Measure AP too, on a data set of any format.")
@flags.split
@click.option("--batch", default="1", metavar="N,...", help="Images at once; several to compare.")
@click.option(
    "--imgsz",
    metavar="N,...",
    help="Sides of the input, or the shorter one.  [default: the model's]",
)
@flags.device
@flags.workers
@click.option("--warmup", default=5, type=click.IntRange(min=0), help="Turns that don't count.")
@click.option("--seconds", default=3.0, type=Finite(0, 86_400), help="Of runs that do, each; ten at least.")
@flags.run("benchmark", default="benchmark, ... where several are compared")
@flags.as_json("All numbers")
def command(names: tuple[str, ...], sweep: str | None, name: str | None, as_json: bool, **options: Any) -> None:
    """Time each NAME: a preset, a release, a file of weights, or an exported .onnx, .xml or .pt2.

    A run goes from prepared images to boxes in pixels; the column "whole" from the bytes of a JPEG on. What is compared
    takes turns. Without --data presets are built with fresh weights, as speed does not depend on them.

    \b
      detr benchmark rtdetr-r18 rtdetr-r50 --device cuda --half --compile
      detr benchmark rtdetr-r18 --backend torch,onnx,openvino --half --batch 1,8
      detr benchmark deimv2-atto --layers 1,2,3 --queries 50,100
      detr benchmark rtdetr-tiny --sweep layers,queries --data shapes
    """
    knobs = [word.strip() for word in (sweep or "").split(",") if word.strip()]
    for flag in ("layers", "queries", "batch", "imgsz"):
        options[flag] = _counts(f"--{flag}", options[flag])
    ways = _ways(**options)

    from detr.engine.benchmark import in_words, machine, warning_of_load
    from detr.runtime.device import choose_device

    made_on = machine(choose_device(options["device"]))
    dataset = None if options["data"] is None else _dataset(**options)
    cases = _cases(names, ways, knobs, with_weights=dataset is not None, **options)
    click.echo(in_words(made_on), err=as_json)
    if busy := warning_of_load(made_on):
        click.echo(busy, err=True)
    folder = None
    if len(cases) > 1 or name is not None or sweep is not None:
        folder = new_run("benchmark", name, project=options["project"], overwrite=options["overwrite"])
    with nullcontext() if folder is None else removed_if_empty(folder):
        points = _measured(cases, dataset, **options)
        table = _table(points)
        click.echo(table, err=as_json)
        report = {
            "machine": made_on,
            "data": None if options["data"] is None else str(options["data"]),
            "points": [point.to_json() for point in points],
        }
        if as_json:
            print_json(report)
        if folder is not None:
            _keep(folder, report, table, in_words(made_on))


def _ways(backend: str, half: bool, compile: bool, int8: bool, calibrate: str | None, **_: Any) -> list[Way]:
    """Each backend as it is, and with each of the flags that it knows."""
    from detr.errors import did_you_mean

    ways = []
    for word in (each.strip() for each in backend.split(",")):
        if word not in BACKENDS:
            raise UsageError(f"--backend {word}{did_you_mean(word, BACKENDS) or '; expected ' + ', '.join(BACKENDS)}")
        ways.append(Way(word))
        if compile and word == "torch":
            ways.append(Way(word, compile=True))
        if half and word != "onnx":
            ways.append(Way(word, half=True))
            ways += [Way(word, half=True, compile=True)] * (compile and word == "torch")
        if int8 and word != "torch":
            ways.append(Way(word, int8=True))
    for flag, wanted, used in (("--compile", compile, any(way.compile for way in ways)),
                               ("--half", half, any(way.half for way in ways)),
                               ("--int8", int8, any(way.int8 for way in ways))):  # fmt: skip
        if wanted and not used:
            raise UsageError(f"{flag} is not for --backend {backend}")
    if int8 and calibrate is None:
        raise UsageError("--int8 needs --calibrate DATA: a data set with some hundred images like those to come")
    return ways


def _cases(
    names: Sequence[str], ways: list[Way], knobs: list[str], *, with_weights: bool, **options: Any
) -> list[Case]:
    from detr.engine.benchmark import Case, settings_to_measure
    from detr.engine.cost import flops_of, parameters_of
    from detr.export import is_exported
    from detr.runtime.settings import input_of_size, set_effort

    cases = []
    for name in names:
        if is_exported(name):
            cases += cases_of_file(name, knobs, **options)
            continue
        network = _network(name, options["model"], with_weights=with_weights)
        efforts = settings_to_measure(network, layers=options["layers"], queries=options["queries"], sweep=knobs)
        for side, (layers, queries) in product(options["imgsz"] or [None], efforts):
            set_effort(network, layers=layers, queries=queries)
            input = input_of_size(network.config.input, side)
            cost = parameters_of(network), flops_of(network, input) / 1e9
            for way, batch in product(ways, options["batch"]):
                make = _Maker(network, layers, queries, input, way, options["device"], options["calibrate"])
                cases.append(Case(name, make, input, batch, layers, queries, *cost))
    return cases


@dataclass(frozen=True)
class _Maker:
    """Makes a network ready to answer, with so many layers and queries."""

    network: Network
    layers: int
    queries: int
    input: InputConfig
    way: Way
    device: str
    calibrate: str | None

    def __call__(self) -> Runner:
        from detr.runtime.device import choose_device
        from detr.runtime.runner import TorchRunner
        from detr.runtime.settings import set_effort

        set_effort(self.network, layers=self.layers, queries=self.queries)
        if self.way.backend == "torch":
            device = choose_device(self.device)
            return TorchRunner(self.network, device=device, half=self.way.half, compile=self.way.compile)

        from detr.export import runner_for
        from detr.export.proven import calibration_of

        return runner_for(
            self.way.backend,
            self.network,
            input=self.input,
            half=self.way.half,
            calibration=calibration_of(self.calibrate) if self.way.int8 and self.calibrate is not None else None,
            say=lambda line: click.echo(line, err=True),
        )


def _measured(cases: list[Case], dataset: CocoDataset | None, **options: Any) -> list[Point]:
    from detr.engine.benchmark import measure, measure_ap
    from detr.runtime.device import default_workers

    points = measure(
        cases,
        seconds=options["seconds"],
        warmup=options["warmup"],
        say=lambda line: click.echo(line, err=True) if len(cases) > 1 else None,
    )
    if dataset is not None:
        workers = default_workers() if options["workers"] is None else options["workers"]
        for point in points:
            point.ap = measure_ap(point.case.make(), point.case, dataset, workers=workers)
    return points


def _network(name: str, model: str | None, *, with_weights: bool) -> Network:
    from detr.models import build_model, load_model, models

    return (build_model(name) if name in models() and not with_weights else load_model(name, model)).eval()


def _dataset(data: Path, split: str, images: Path | None, **_: Any) -> CocoDataset:
    from detr.data.opening import open_split
    from detr.data.sources import find_split

    return open_split(find_split(data, split, images=images))


def _keep(folder: Path, report: dict[str, Any], table: str, made_on: str) -> None:
    from detr.evaluation import plots

    write_text(folder / "benchmark.json", json.dumps(report, indent=2) + "\n")
    write_text(folder / "benchmark.md", f"{table}\n\n{made_on}\n")
    files = "benchmark.json, benchmark.md"
    if plots.available():
        plots.draw_benchmark(report["points"], folder / "benchmark.png")
        files += ", benchmark.png"
    click.echo(f"{folder}: {files}", err=True)


_COLUMNS = {
    "model": "{name}",
    "runner": "{runner}",
    "batch": "{batch}",
    "input": "{input[width]}x{input[height]}",
    "layers": "{layers}",
    "queries": "{queries}",
    "GFLOPs": "{gflops:.1f}",
    "median ms": "{median_ms:.2f}",
    "p95 ms": "{p95_ms:.2f}",
    "whole ms": "{whole_ms:.2f}",
    "images/s": "{images_per_second:.1f}",
    "memory MB": "{memory}",
    "AP": "{AP}",
}


def _table(points: list[Point]) -> str:
    """Markdown, its columns aligned."""
    rows = []
    for point in points:
        memory = "-" if point.memory is None else f"{point.memory / 1e6:.1f}"
        numbers = {**point.to_json(), "memory": memory, "AP": "-" if point.ap is None else f"{point.ap:.4f}"}
        rows.append([text.format(**numbers) for text in _COLUMNS.values()])
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    lines = [list(_COLUMNS), ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(f"{word:>{width}}" for word, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _counts(flag: str, text: str | None) -> list[int]:
    """`3,4,6` -> those numbers, all at least 1."""
    words = [] if text is None else text.split(",")
    if not all(word.strip().isdecimal() and int(word) >= 1 for word in words):
        raise UsageError(f"{flag} {text}: expected whole numbers from 1, such as 4 or 2,4,6")
    return [int(word) for word in words]
