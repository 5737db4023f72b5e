"""Which program runs the network: the options of it, and the runner they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from detr.cli.flags import together
from detr.errors import UsageError

if TYPE_CHECKING:
    from detr.runtime.runner import Runner


backend_options = together(
    click.option(
        "--backend",
        type=click.Choice(["torch", "onnx", "openvino"]),
        default="torch",
        help="What runs the network: PyTorch, or on the CPU ONNX Runtime or OpenVINO.",
    ),
    click.option("--int8", is_flag=True, help="Compute in 8 bits; needs --backend onnx or openvino, --calibrate."),
    click.option("--calibrate", metavar="DATA", help="Data set whose images --int8 is fitted to, some hundred."),
)


def exported_runner(
    weights: str,
    *,
    model: str | None,
    backend: str,
    int8: bool,
    calibrate: str | None,
    imgsz: Any = None,
    layers: int | None = None,
    queries: int | None = None,
    device: str = "auto",
    half: bool = False,
    compile: bool = False,
) -> Runner | None:
    """What answers where PyTorch doesn't, else None. UsageError for options that don't go together."""
    from detr.export import is_exported, open_runner, require_device, runner_for

    given = is_exported(weights)
    _require_sense(weights, given, backend, int8, calibrate)
    if backend == "torch" and not given:
        return None
    if compile:
        raise UsageError("--compile is PyTorch's; leave it out where something else runs the network")
    if given:
        require_device(weights, device)
        fixed = {"--layers": layers, "--queries": queries, "--model": model}
        for flag in (flag for flag, value in fixed.items() if value is not None):
            raise UsageError(f"{flag}: {weights} was exported with its own; export it again to change them")
        return open_runner(weights, half=half)
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: ONNX Runtime and OpenVINO run on the CPU here; leave it out")

    from detr.export.proven import calibration_of
    from detr.models import load_model
    from detr.runtime.settings import input_of_size, set_effort

    network = load_model(weights, model)
    set_effort(network, layers=layers, queries=queries)
    return runner_for(
        backend,
        network,
        input=input_of_size(network.config.input, imgsz),
        half=half,
        calibration=None if calibrate is None else calibration_of(calibrate),
        say=lambda line: click.echo(line, err=True),
    )


def _require_sense(weights: str, given: bool, backend: str, int8: bool, calibrate: str | None) -> None:
    if given and (backend != "torch" or int8):
        raise UsageError(f"{weights} is an exported file, which says how it is run; leave out --backend and --int8")
    if int8 and backend == "torch":
        raise UsageError("--int8 needs --backend openvino or --backend onnx")
    require_calibration(int8, calibrate)


def require_calibration(int8: bool, calibrate: str | None) -> None:
    if int8 and calibrate is None:
        raise UsageError("--int8 needs --calibrate DATA: a data set with some hundred images like those to come")
    if calibrate is not None and not int8:
        raise UsageError("--calibrate is for --int8; say both")
