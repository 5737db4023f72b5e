"""`detr val`: how good a model, or a file of predictions, is on a data set."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from detr.cli import flags
from detr.cli.backend import backend_options, exported_runner
from detr.cli.given_predictions import measure_predictions
from detr.cli.help import Verb
from detr.cli.launching import leave_to_processes
from detr.cli.measured import noted, show, tell_why
from detr.cli.plain import to_stderr
from detr.cli.slices import slice_options, slicing_asked
from detr.errors import UsageError
from detr.extras import require
from detr.files import new_run, removed_if_empty, require_writable, write_text

if TYPE_CHECKING:
    from detr.classes import Classes
    from detr.data.annotations import Annotations
    from detr.data.coco import CocoDataset
    from detr.diagnose.places import Places, PlaceWatch
    from detr.evaluation.metrics import Metrics
    from detr.evaluation.predictions import DetectionArrays
    from detr.image import InputConfig
    from detr.runtime.distributed import Team
    from detr.runtime.runner import Runner, TorchRunner


@click.command(cls=Verb, context_settings={"show_default": True})
@click.option("--weights", help="The model: a release's name, a file of weights, or an exported .onnx, .xml or .pt2.")
@flags.model
@click.option("--predictions", type=click.Path(path_type=Path), help="In place of a model: a COCO results file.")
@click.option("--data", type=click.Path(path_type=Path), help="Data set: COCO, YOLO or VOC; folder or file.")
@flags.split
@click.option("--batch", default=8, type=click.IntRange(min=1), help="Images at once, in each process.")
@flags.side
@flags.parts
@flags.devices
@flags.workers
@flags.half
@click.option("--compile", is_flag=True, help="Compile the network first: a minute, then faster.")
@backend_options
@slice_options
@click.option("--conf", default=0.0, help="Leave out scores below; 0 as COCO does.")
@click.option("--max-dets", default=100, type=click.IntRange(min=1), help="Detections that count per class and image.")
@click.option("--evaluator", type=click.Choice(["detr", "pycocotools"]), default="detr")
@click.option(
    "--allow-extra-images", is_flag=True, help="Leave out predictions for images that the data does not have."
)
@click.option(
    "--save-json", "--predictions-out", is_flag=False, flag_value="", metavar="[PATH]",
    help="predictions.json, as in predict: it is in the run's folder anyway; with PATH it is there too.",
)  # fmt: skip
@click.option("--why", is_flag=True, help="Also say why AP is lost: why.html, why.json, thresholds.json in the folder.")
@flags.run("val", default="val, val-2, ...; none with --predictions")
@flags.as_json("All numbers")
def command(weights: str | None, predictions: Path | None, data: Path | None, **options: Any) -> None:
    """Measure a model, or a file of predictions, on --data: COCO's twelve numbers and those of each class.

    The run's folder gets metrics.json, charts and, with a model, predictions.json and samples. Several GPUs:
    torchrun --nproc-per-node N -m detr val ... gives the same numbers. With --why it also says what AP is lost to.

    \b
      detr val --weights rtdetr-r18 --data coco
      detr val --weights runs/train/train/best.safetensors --data my-data --json
      detr val --weights rtdetr-r18 --data my-data --why
      detr val --predictions results.json --data instances_val2017.json
    """
    if data is None:
        raise UsageError("val needs --data: a folder, an annotation file, or a YAML")
    if (weights is None) == (predictions is None):
        raise UsageError("val needs either --weights or --predictions")
    if not 0 <= options["conf"] <= 1:  # NaN is not either
        raise UsageError(f"--conf {options['conf']}: expected a number from 0 to 1")
    slices = slicing_asked(options.pop("tile"), options["overlap"], options["tiles_only"], batch=options["batch"])
    if options["why"]:
        require("plots", "--why", "matplotlib")
    leave_to_processes(options["device"])
    if predictions is not None:
        _refuse_what_is_of_a_model()
        measure_predictions(predictions, data, **options)
    else:
        assert weights is not None
        _measure_model(weights, data, slicing=slices, **options)


_OF_A_MODEL = (
    *("model", "conf", "imgsz", "layers", "queries", "half", "compile", "backend", "int8", "calibrate"),
    *("tile", "overlap", "tiles_only"),
)


def _refuse_what_is_of_a_model() -> None:
    """UsageError for an option that would change nothing of predictions that are there."""
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        if name in _OF_A_MODEL and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{option.opts[0]} is for a model; leave it out with --predictions")


def _measure_model(weights: str, data: Path, **options: Any) -> None:
    from detr.runtime.device import choose_device
    from detr.runtime.distributed import joined
    from detr.runtime.settings import input_of_size

    with joined(choose_device(options["device"])) as team:
        runner = _runner(team, weights, **options)
        dataset = _dataset(team, runner, data, **options)
        input = input_of_size(runner.config.input, options["imgsz"])
        if options["save_json"] and team.leads:
            require_writable(Path(options["save_json"]).parent)
        name, project, overwrite = options["name"], options["project"], options["overwrite"]
        folder = team.agreed(lambda: new_run("val", name, project=project, overwrite=overwrite))
        start = time.perf_counter()
        with removed_if_empty(folder):
            metrics, found, places = _validated(team, runner, dataset, input, **options)
        if team.leads:
            seconds = time.perf_counter() - start
            about = {"weights": weights, "data": str(data), "run": _run_of(runner, **options), "seconds": seconds}
            report = {**about, **metrics.to_json()}
            _leave(folder, runner, dataset, metrics, found, places, report, **options)


def _dataset(team: Team, runner: Runner, data: Path, **options: Any) -> CocoDataset:
    """The split, of whose classes the model knows at least those that have boxes."""
    from detr.data.coco import CocoDataset
    from detr.data.sources import find_split
    from detr.runtime.progress import told_if_long

    with told_if_long(f"reading {data}", quiet=not team.leads):
        source = find_split(data, options["split"], images=options["images"])
        dataset = CocoDataset(noted(source.read()), source.images)
    _require_known_classes(runner.classes, dataset.annotations, say=team.leads)
    return dataset


def _validated(
    team: Team, runner: Runner, dataset: CocoDataset, input: InputConfig, **options: Any
) -> tuple[Metrics, DetectionArrays, Places | str]:
    """The numbers, what was found, and with --why where queries started, or why that isn't known."""
    from detr.evaluation.validate import validate
    from detr.runtime.device import default_workers

    watch, unseen = _watch(runner, dataset, **options) if options["why"] else (None, "")
    metrics, found = validate(
        runner,
        dataset,
        batch_size=options["batch"],
        workers=default_workers(team.size) if options["workers"] is None else options["workers"],
        input=input,
        watch=watch,
        **{name: options[name] for name in ("conf", "max_dets", "evaluator", "slicing")},
    )
    return metrics, found, unseen if watch is None else watch.places()


def _watch(runner: Runner, dataset: CocoDataset, **options: Any) -> tuple[PlaceWatch | None, str]:
    from detr.diagnose.places import PlaceWatch, unwatchable

    unseen = unwatchable(runner, sliced=options["slicing"] is not None)
    return (None, unseen) if unseen else (PlaceWatch(cast("TorchRunner", runner), dataset.annotations), "")


def _run_of(runner: Runner, **options: Any) -> dict[str, Any]:
    """What the numbers depend on besides weights and data."""
    kept = ("split", "batch", "imgsz", "half", "conf", "layers", "queries")
    settings = {key: options[key] for key in kept} | {"device": str(runner.device), "runner": runner.name}
    return {**settings, "slicing": None if options["slicing"] is None else vars(options["slicing"])}


def _leave(
    folder: Path,
    runner: Runner,
    dataset: CocoDataset,
    metrics: Metrics,
    found: DetectionArrays,
    places: Places | str,
    report: dict[str, Any],
    **options: Any,
) -> None:
    """Say the numbers, and leave them in the folder with predictions and pictures."""
    from detr.evaluation.album import draw_evaluation
    from detr.evaluation.predictions import write_predictions

    show(metrics, report, as_json=options["as_json"])
    for path in filter(None, (folder / "predictions.json", options["save_json"])):
        write_predictions(Path(path), found, dataset.classes)
    write_text(folder / "metrics.json", json.dumps(report, indent=2) + "\n")
    pictures = draw_evaluation(folder, dataset, metrics, found)
    files = ["metrics.json", "predictions.json", *(path.name for path in pictures)]
    if options["why"]:
        from detr.diagnose.diagnosis import diagnose

        queries = getattr(runner.config, "eval_queries", None) or runner.config.num_queries
        diagnosis = diagnose(dataset.annotations, found, num_queries=queries, places=places)
        files += tell_why(diagnosis, metrics, folder, dataset, **options)
    speed = len(dataset) / report["seconds"]
    click.echo(f"{folder}: {', '.join(files)} ({speed:.1f} images/s, evaluation included)", err=True)


def _runner(team: Team, weights: str, **options: Any) -> Runner:
    from detr.models import load_model
    from detr.runtime.runner import TorchRunner
    from detr.runtime.settings import set_effort

    words = ("model", "backend", "int8", "calibrate", "imgsz", "layers", "queries", "device", "half", "compile")
    runner = exported_runner(weights, **{word: options[word] for word in words})
    if runner is not None:
        return runner
    network = load_model(weights, options["model"], device=team.device)
    set_effort(network, layers=options["layers"], queries=options["queries"])
    return TorchRunner(network, device=team.device, half=options["half"], compile=options["compile"])


def _require_known_classes(classes: Classes, annotations: Annotations, *, say: bool) -> None:
    from detr.evaluation.validate import OtherClasses, matched_classes

    try:
        matched_classes(classes, annotations)
    except OtherClasses as problem:
        if say:
            to_stderr(problem.table)
        raise
