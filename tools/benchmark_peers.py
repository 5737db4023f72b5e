"""RT-DETR by us and by what else is installed, side by side: the same weights, the same image, one after the other.

    python tools/benchmark_peers.py --out tools/results/peers.md

Networks have random weights, as speed does not depend on them, filled so that no two queries are alike. A way of
running one must find what transformers finds, or its time is not shown; where numbers are shorter than float32 the
median difference of a query's scores and box is shown instead. Ways take turns (A B A B ...), so what else a machine
does hits all of them alike. What isn't installed, or fails, is left out, and said.
Ours run with freed memory kept, as in `detr`'s commands; the others with what glibc arrives at by itself.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from commit import commit
from torch import Tensor, nn

from detr.cli.allocation import keep_freed_memory
from detr.models import Network, build_model
from detr.models.saving import save_model
from detr.ops import kernels
from detr.runtime.processor import processor
from detr.runtime.runner import TorchRunner

CLOSE = {"cpu": 1e-3, "cuda": 2e-2}
"""Scores, and boxes as shares of the image, of the median query of ways in float32; a GPU's convolutions round the
factors to 10 bits (TF32), as PyTorch lets them."""
Answer = tuple[Tensor, Tensor]  # logits [B, Q, C], boxes [B, Q, 4]


@dataclass(eq=False)
class Way:
    name: str
    run: Callable[[Tensor], Answer]
    exact: bool = True  # computes in float32
    difference: float = math.nan
    times: list[float] | None = None


@click.command()
@click.argument("names", nargs=-1)
@click.option("--batch", default=1, show_default=True)
@click.option("--size", default=640, show_default=True, help="Side of the image, in pixels.")
@click.option("--rounds", default=9, show_default=True, help="Turns that count.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="On a CPU.")
@click.option("--without", multiple=True, help="Leave out ways with this in their name.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file, and a .json, too.")
def main(names: tuple[str, ...], batch: int, size: int, rounds: int, device: str, threads: int, **options: Any) -> None:
    """Measure the presets NAMES (rtdetr-r18 and rtdetr-r50 unless given)."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    lines, report, text = ["# RT-DETR, ours and others'", ""], [], ""
    ending = [
        "`times as fast` as the first way, by medians of turns. `difference`: of scores and box of the",
        "median query from its nearest of the first way's. Prepared images to logits and boxes.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DETR_HOME"] = str(Path(folder) / "home")
        for name in names or ("rtdetr-r18", "rtdetr-r50"):
            torch.manual_seed(0)
            images = pictures(batch, size)
            ways, refused = ways_of(name, images, torch.device(device), Path(folder), options["without"])
            alternate(ways, images, rounds)
            lines += table(f"## {name}, {size} x {size}, batch {batch}, {device}", ways, refused)
            report.append({"name": name, "ways": {way.name: way.times for way in ways}})
            text = "\n".join([*lines, *ending, *footer(Path(__file__).name, threads, device)])
            if options["out"]:  # what was measured stays, whatever ends the program
                options["out"].write_text(text + "\n", encoding="utf-8")
                options["out"].with_suffix(".json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    print(text)


def ways_of(
    name: str, images: Tensor, device: torch.device, folder: Path, without: tuple[str, ...]
) -> tuple[list[Way], dict[str, str]]:
    """transformers first, where it is installed: the others are compared with the first. And why others are left out:
    they find something else, or can't be run here."""
    network = filled(build_model(name)).eval()
    makers: dict[str, Callable[[], Callable[[Tensor], Answer]]] = {}
    if missing := missing_of("transformers"):
        print(f"not installed, left out: {missing}", file=sys.stderr)
    else:
        theirs = transformers_model(network, folder / name).to(device)
        makers["transformers"] = lambda: answering(theirs, images.to(device))
        makers["transformers, torch.compile"] = lambda: answering(torch.compile(theirs), images.to(device))
    makers |= {
        "detr, per-level grid_sample": lambda: per_level(TorchRunner(network, device=device)),
        "detr": lambda: ours(TorchRunner(network, device=device)),
        "detr --compile": lambda: ours(TorchRunner(network, device=device, compile=True)),
        "detr --half": lambda: ours(TorchRunner(network, device=device, half=True)),
        "detr --half --compile": lambda: ours(TorchRunner(network, device=device, half=True, compile=True)),
    }
    if device.type == "cpu" and not missing:
        makers |= file_ways(network, theirs, images, folder)
    ways: list[Way] = []
    refused: dict[str, str] = {}
    expected = None
    for title, make in makers.items():
        if any(word in title for word in without):
            continue
        print(f"making {name}: {title}", file=sys.stderr, flush=True)
        try:
            way = Way(title, make(), exact="half" not in title and "int8" not in title and "bf16" not in title)
            found = answer_of(way, images)
        except Exception as problem:  # no compiler, no memory: the table says so
            traceback.print_exc()
            refused[title] = f"{type(problem).__name__}: {next(iter(str(problem).splitlines()), '')}"
            continue
        expected = found if expected is None else expected
        way.difference = torch.cdist(expected, found, p=math.inf).amin(-1).median().item()
        if way.exact and not way.difference <= CLOSE[device.type]:
            refused[title] = f"its queries are {way.difference:.1e} from those of {ways[0].name if ways else title}"
        else:
            ways.append(way)
    if not ways:
        sys.exit(f"{name}: no way of running it works here")
    return ways, refused


def file_ways(network: Network, theirs: nn.Module, images: Tensor, folder: Path) -> dict[str, Any]:
    """By ONNX Runtime and OpenVINO: ours, and transformers' model as one would convert it by hand."""
    from detr.data.opening import open_for_training
    from detr.data.shapes import make_shapes
    from detr.export import Calibration, runner_for

    def calibration() -> Calibration:
        shapes = folder / "shapes"
        if not shapes.exists():
            make_shapes(shapes, images=60, val_images=1, size=images.shape[-1], video=False)
        return Calibration(open_for_training(shapes)[0], most=30)

    ways: dict[str, Any] = {}
    if missing := missing_of("onnxruntime", "onnx"):
        print(f"not installed, left out: {missing}", file=sys.stderr)
    else:
        ways["detr --backend onnx"] = lambda: ours(runner_for("onnx", network))
    if missing := missing_of("openvino"):
        print(f"not installed, left out: {missing}", file=sys.stderr)
        return ways
    ways["transformers, OpenVINO by hand"] = lambda: by_openvino(theirs, images, "f32")
    ways["transformers, OpenVINO by hand, bf16"] = lambda: by_openvino(theirs, images, "bf16")
    ways["detr --backend openvino"] = lambda: ours(runner_for("openvino", network))
    ways["detr --backend openvino --half"] = lambda: ours(runner_for("openvino", network, half=True))
    if not missing_of("nncf"):
        ways["detr --backend openvino --int8"] = lambda: ours(
            runner_for("openvino", network, calibration=calibration())
        )
    return ways


def missing_of(*packages: str) -> str:
    return ", ".join(package for package in packages if importlib.util.find_spec(package) is None)


def pictures(batch: int, size: int) -> Tensor:
    """Large soft blobs with noise: every place looks different."""
    blobs = nn.functional.interpolate(torch.randn(batch, 3, 6, 6), size=(size, size), mode="bilinear")
    return blobs + 0.5 * torch.rand(batch, 3, size, size)


@torch.no_grad()
def filled(network: Network) -> Network:
    """Weights with which the signal neither dies nor explodes."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() > 1:
            tensor.normal_(0, math.sqrt(1.2 / tensor[0].numel()))
        elif name.endswith("weight"):
            tensor.uniform_(0.8, 1.2)
        elif name.endswith("bias"):
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return network


def transformers_model(network: Network, folder: Path) -> nn.Module:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    save_model(network, folder, "hf")
    return transformers.RTDetrForObjectDetection.from_pretrained(folder).eval()


def answering(model: Any, images: Tensor) -> Callable[[Tensor], Answer]:
    @torch.no_grad()
    def run(given: Tensor) -> Answer:
        output = model(given.to(images.device))
        return output.logits, output.pred_boxes

    return run


def ours(runner: Any) -> Callable[[Tensor], Answer]:
    @torch.inference_mode()
    def run(images: Tensor) -> Answer:
        last = runner(images).layers[-1]
        return last.logits, last.boxes

    return run


def per_level(runner: Any) -> Callable[[Tensor], Answer]:
    run = ours(runner)

    def run_so(images: Tensor) -> Answer:
        with kernels("grid_sample"):
            return run(images)

    return run_so


def by_openvino(model: nn.Module, images: Tensor, precision: str) -> Callable[[Tensor], Answer]:
    """As one would by hand: converted from a trace, compiled for latency."""
    import openvino

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, given: Tensor) -> Answer:
            output = self.model(given)
            return output.logits, output.pred_boxes

    with torch.no_grad():
        converted = openvino.convert_model(Plain().eval(), example_input=images, input=list(images.shape))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(
        converted, "CPU", settings | {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    )

    def run(given: Tensor) -> Answer:
        found = compiled(given.numpy())
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    return run


def answer_of(way: Way, images: Tensor) -> Tensor:
    """[B, Q, C + 4] scores and boxes"""
    logits, boxes = way.run(images)
    return torch.cat([logits.float().sigmoid(), boxes.float()], -1).cpu()


def alternate(ways: list[Way], images: Tensor, rounds: int) -> None:
    for way in ways:
        way.times = []
    for number in range(rounds + 1):
        for way in ways:
            allocate_as_in(way.name)
            begun = time.perf_counter()
            way.run(images)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first turn warms up
                way.times.append(1000 * (time.perf_counter() - begun))


def allocate_as_in(name: str) -> None:
    """When freed memory goes back to the system; on Linux with glibc."""
    if name.startswith("detr"):
        keep_freed_memory()
    elif (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(-1, 64 << 20)  # M_TRIM_THRESHOLD: twice the largest block from the heap, as by default


def table(title: str, ways: list[Way], refused: dict[str, str]) -> list[str]:
    base = statistics.median(ways[0].times)
    lines = [title, "", "| way | median ms | quartiles | times as fast | difference |", "|---|---|---|---|---|"]
    for way in ways:
        low, middle, high = statistics.quantiles(way.times, n=4)
        lines.append(
            f"| {way.name} | {middle:.1f} | {low:.1f}-{high:.1f} | {base / middle:.2f} | {way.difference:.0e} |"
        )
    lines += [f"| {name} | no time: {why} | | | |" for name, why in refused.items()]
    return [*lines, ""]


def footer(program: str, threads: int, device: str) -> list[str]:
    """What was measured on, and how to do it again."""
    versions = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "transformers", "onnxruntime", "openvino"))
    what = torch.cuda.get_device_name() if device.startswith("cuda") else f"{processor()}, {threads} threads"
    return [
        f"{platform.system()} {platform.machine()}, {what}, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, {versions}; commit {commit()}.",
        "",
        f"    {' '.join(['python', f'tools/{program}', *sys.argv[1:]])}",
    ]


def version_of(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    main()
