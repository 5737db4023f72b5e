"""`detr export`: a model as a file that other programs run, and the proof that it finds the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import Finite, sides, to_stderr
from detr.errors import UsageError, did_you_mean
from detr.files import require_writable

if TYPE_CHECKING:
    from detr.data.coco import CocoDataset
    from detr.export import Form
    from detr.models import Network


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("weights", metavar="MODEL")
@flags.model
@click.option("--fresh", is_flag=True, help="MODEL is a preset, to be exported with fresh weights.")
@click.option(
    "--format", "formats", default="onnx", metavar="NAME,...", help="onnx, openvino, torch-export, tensorrt; several."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File or folder.  [default: MODEL's name, here]")
@click.option("--imgsz", metavar="N|H,W", help="Size of the input.  [default: the model's]")
@flags.parts
@click.option(
    "--dynamic",
    metavar="batch,size",
    help="What is left open: batch, size, both, or none.  [default: batch, and size where the model keeps the aspect]",
)
@click.option("--half", is_flag=True, help="Weights and most of the computation in float16.")
@click.option("--int8", is_flag=True, help="Backbone and encoder in 8 bits; needs --calibrate. For onnx and openvino.")
@click.option("--calibrate", metavar="DATA", help="Data set whose images --int8 is fitted to, some hundred.")
@click.option("--with-preprocessing", is_flag=True, help="Take pictures as they are: uint8, RGB, of any size.")
@click.option("--with-postprocessing", is_flag=True, help="Give scores, labels and boxes in pixels, best first.")
@click.option("--max-det", default=300, type=click.IntRange(min=1), help="So many, with --with-postprocessing.")
@click.option(
    "--max-batch", default=8, type=click.IntRange(min=1), help="tensorrt: images at once, at most, of an open batch."
)
@click.option("--workspace", metavar="GB", type=Finite(min=0, min_open=True), help="tensorrt: GPU memory to try.")
@click.option("--verify/--no-verify", default=True, help="Compare what the file finds with what PyTorch finds.")
@click.option("--data", type=click.Path(path_type=Path), help="Data set to verify with, AP included.")
@flags.split
@click.option(
    "--most", default=64, type=click.IntRange(min=1), help="Pictures to compare, evenly spread over the data."
)
@click.option("--json", "as_json", is_flag=True, help="What was written and found as JSON on stdout.")
def command(weights: str, formats: str, as_json: bool, **options: Any) -> None:
    """Write MODEL, a release or a file of weights, as a file that `detr predict`, `val` and `benchmark --weights` run,
    and so do ONNX Runtime, OpenVINO and PyTorch without this program. An engine of TensorRT is made for the GPU and
    the TensorRT that are here, and runs with no others. Files of torch-export and TensorRT are programs, which could do
    anything: run none that you don't trust.

    Each file is then compared with PyTorch on real pictures, those of --data, or on generated ones. It gets its name
    when both find the same; until then, and if they don't, it is called NAME.unverified. Which stage is the first to
    differ is said: decode, resize, normalise, backbone, encoder, selection, decoder or postprocessing.

    \b
      detr export best.safetensors --data my-data
      detr export rtdetr-r18 --format onnx,openvino -o exported
      detr export best.safetensors --format openvino --int8 --calibrate my-data
    """
    from detr.export import require_format, require_weights
    from detr.export.proven import path_for

    require_weights(weights)
    names = [name.strip() for name in formats.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--format {formats!r}: expected onnx, openvino, torch-export, tensorrt, or several of them")
    if options["int8"] != (options["calibrate"] is not None):
        needs = "--int8 needs --calibrate DATA: a data set with some hundred images like those to come"
        raise UsageError(needs if options["int8"] else "--calibrate is for --int8; say both")
    for name in names:
        require_format(name, int8=options["int8"])
    form = _form(**options)
    network = _network(weights, **options)
    kind = {"half": options["half"], "int8": options["int8"]}
    paths = {name: path_for(weights, name, options["out"], **kind) for name in names}
    for path in paths.values():
        require_writable(path.parent)
    dataset = None if options["data"] is None else dataset_of(options["data"], options["split"], options["images"])
    reports = [_exported(network, name, path, form, dataset, **options) for name, path in paths.items()]
    if as_json:
        click.echo(json.dumps(reports))


def _network(weights: str, model: str | None, fresh: bool, **options: Any) -> Network:
    from detr.export import of_input
    from detr.models import build_model, load_model
    from detr.runtime.settings import input_of_size, set_effort

    network = build_model(weights).eval() if fresh else load_model(weights, model)
    set_effort(network, layers=options["layers"], queries=options["queries"])
    imgsz = None if options["imgsz"] is None else sides(options["imgsz"])
    return of_input(network, input_of_size(network.config.input, imgsz))


def _form(dynamic: str | None, **options: Any) -> Form:
    """As far as it doesn't depend on the network."""
    from detr.export import Form

    words = {word.strip() for word in (dynamic or "batch").split(",")} - {"none", ""}
    for word in words - {"batch", "size"}:
        raise UsageError(f"--dynamic {word}{did_you_mean(word, ['batch', 'size', 'none']) or ': expected batch, size'}")
    return Form(
        preprocessing=options["with_preprocessing"],
        max_det=options["max_det"] if options["with_postprocessing"] else None,
        open_batch="batch" in words,
        open_size="size" in words,
        half=options["half"],
    )


def _exported(
    network: Network, format: str, path: Path, form: Form, dataset: CocoDataset | None, **options: Any
) -> dict[str, Any]:
    from dataclasses import replace

    from detr.export import Building, form_for
    from detr.export.proven import calibration_of, write_proven

    if options["dynamic"] is None and not form.preprocessing:
        form = replace(form, open_size=form_for(network).open_size)
    return write_proven(
        format,
        network,
        path,
        form=form,
        calibration=calibration_of(options["calibrate"]) if options["int8"] else None,
        building=Building(options["max_batch"], options["workspace"]),
        verify=options["verify"],
        dataset=dataset,
        called="generated pictures" if dataset is None else str(options["data"]),
        most=options["most"],
        say=to_stderr,
    )


def dataset_of(data: Path, split: str, images: Path | None) -> CocoDataset:
    from detr.data.opening import open_split
    from detr.data.sources import find_split

    return open_split(find_split(data, split, images=images))
