"""`detr export`: a model as a file that other programs run, and the proof that it finds the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.backend import require_calibration
from detr.cli.help import Verb
from detr.cli.plain import Finite, print_json, sides, to_stderr
from detr.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from detr.engine.exporting import Order
    from detr.models import Network


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("weights", metavar="MODEL")
@flags.model
@click.option("--fresh", is_flag=True, help="MODEL is a preset, to be exported with fresh weights.")
@click.option(
    "--format", "formats", default="onnx", metavar="NAME,...", help="onnx, openvino, torch-export, tensorrt; several."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File or folder.  [default: MODEL's name, here]")
@flags.imgsz
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
@flags.as_json("What was written and found")
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
    from detr.engine.exporting import fill
    from detr.export import require_weights

    require_weights(weights)
    require_calibration(options["int8"], options["calibrate"])
    order = _order(formats, **options)
    order.paths(weights)  # what is in the way is said before the work
    reports = fill(order, _network(weights, **options), weights, say=to_stderr)
    if as_json:
        print_json({"files": reports})


def _order(formats: str, dynamic: str | None, **options: Any) -> Order:
    from detr.engine.exporting import Order
    from detr.export import Building

    names = [name.strip() for name in formats.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--format {formats!r}: expected onnx, openvino, torch-export, tensorrt, or several of them")
    words = {word.strip() for word in (dynamic or "batch").split(",")} - {"none", ""}
    for word in words - {"batch", "size"}:
        raise UsageError(f"--dynamic {word}{did_you_mean(word, ['batch', 'size', 'none']) or ': expected batch, size'}")
    same = ("out", "half", "calibrate", "verify", "data", "split", "images", "most")
    return Order(
        formats=names,
        preprocessing=options["with_preprocessing"],
        max_det=options["max_det"] if options["with_postprocessing"] else None,
        open_batch="batch" in words,
        open_size=None if dynamic is None else "size" in words,
        building=Building(options["max_batch"], options["workspace"]),
        **{name: options[name] for name in same},
    )


def _network(weights: str, model: str | None, fresh: bool, **options: Any) -> Network:
    from detr.export import of_input
    from detr.models import build_model, load_model
    from detr.runtime.settings import input_of_size, set_effort

    network = build_model(weights).eval() if fresh else load_model(weights, model)
    set_effort(network, layers=options["layers"], queries=options["queries"])
    imgsz = None if options["imgsz"] is None else sides(options["imgsz"])
    return of_input(network, input_of_size(network.config.input, imgsz))
