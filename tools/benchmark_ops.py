"""Measure the forms of deformable attention against each other: outputs and gradients first, then time.

    python tools/benchmark_ops.py --out tools/results/ops.md

Measures at the sizes of RT-DETR's decoder (640 px) and Deformable DETR's encoder (800 x 1066 px), forward without
gradients and forward with backward, all forms in turn (A B A B ...), and prints medians, quartiles and ratios to the
form by `grid_sample`, level by level. A form shows no time unless its outputs and gradients are those of that one in
float64. With a CUDA device there are rows of it too, with the memory-traffic floor: the bytes that must be read and
written at least once, over the bandwidth that a copy reaches on the device.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import torch
from commit import commit
from torch import Tensor

from detr.ops import deformable_attention, kernels
from detr.ops.locations import frames_of
from detr.runtime.processor import processor

PYRAMID_640 = ((80, 80), (40, 40), (20, 20))
PYRAMID_800 = ((100, 134), (50, 67), (25, 34), (13, 17))
HEADS, CHANNELS, POINTS = 8, 32, 4
NAMES = ("value", "offsets", "logits")
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Of the norm of the difference, as a share of the norm."""


class Size(NamedTuple):
    """queries None: one at every position, as in an encoder."""

    name: str
    shapes: tuple[tuple[int, int], ...]
    batch: int
    queries: int | None


CPU_SIZES = (
    Size("RT-DETR decoder, batch 1", PYRAMID_640, 1, 300),
    Size("RT-DETR decoder, batch 4", PYRAMID_640, 4, 300),
    Size("Deformable DETR encoder, batch 1", PYRAMID_800, 1, None),
)
CUDA_SIZES = (
    Size("RT-DETR decoder, batch 1", PYRAMID_640, 1, 300),
    Size("RT-DETR decoder, batch 16", PYRAMID_640, 16, 300),
    Size("Deformable DETR encoder, batch 2", PYRAMID_800, 2, None),
)


class Way(NamedTuple):
    """A form, and how it is asked for."""

    name: str
    kernels: str
    deterministic: bool = False
    compiled: bool = False


Run = Callable[[bool], tuple[Tensor, ...]]  # backward -> the output, or the gradients of value, offsets, logits


class Given(NamedTuple):
    shapes: tuple[tuple[int, int], ...]
    references: Tensor
    value: Tensor
    offsets: Tensor
    logits: Tensor
    grad: Tensor


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file too.")
@click.option("--cpu/--no-cpu", default=True, help="Whether the CPU is measured; a CUDA device is where there is one.")
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True, help="On the CPU.")
@click.option("--only", help="Only sizes with this in their name.")
@click.option("--seconds", default=6.0, show_default=True, help="For each size, direction and number of threads.")
@click.option("--compile", "compiled", is_flag=True, help="Also both plain forms under torch.compile.")
def main(
    out: Path | None, cpu: bool, threads: tuple[int, ...], only: str | None, seconds: float, compiled: bool
) -> None:
    lines = ["# Deformable attention: the forms side by side", ""]

    def put(more: Iterable[list[str]]) -> None:
        """What was measured stays, whatever ends the program."""
        for each in more:
            lines.extend(each)
            if out:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text("\n".join(lines) + "\n", encoding="utf-8")

    for number in threads if cpu else ():
        torch.set_num_threads(number)
        title = f"## CPU, float32, {number} thread{'s' if number > 1 else ''}"
        put(table(title, CPU_SIZES, ways("cpu", compiled), torch.device("cpu"), torch.float32, only, seconds))
    if torch.cuda.is_available():
        for dtype in (torch.float32, torch.bfloat16):
            title = f"## {torch.cuda.get_device_name()}, {str(dtype).removeprefix('torch.')}"
            put(table(title, CUDA_SIZES, ways("cuda", compiled), torch.device("cuda"), dtype, only, seconds))
    put([footer()])
    print("\n".join(lines))


def ways(device: str, compiled: bool) -> list[Way]:
    """The one that others are compared with first."""
    found = [Way("grid_sample", "grid_sample"), Way("torch", "torch")]
    if device == "cuda":
        found += [Way("triton", "triton"), Way("triton, deterministic", "triton", deterministic=True)]
    if compiled:
        found += [Way(f"{way.name}, compiled", way.kernels, compiled=True) for way in found[:2]]
    return found


def table(
    title: str,
    sizes: tuple[Size, ...],
    ways: list[Way],
    device: torch.device,
    dtype: torch.dtype,
    only: str | None,
    seconds: float,
) -> Iterator[list[str]]:
    """Lines as they are known."""
    yield [
        title,
        "",
        "| size | direction | form | median ms | quartiles | grid_sample = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        if only and only not in size.name:
            continue
        given = make(size, device, dtype)
        every = [(way, runner(way, given)) for way in ways]
        wrong = faults(every, given, dtype)
        yield [f"| {size.name} | | {name} | no time: {fault} | | |" for name, fault in wrong.items()]
        runs = [run for way, run in every if way.name not in wrong]
        sound = [way for way, _ in every if way.name not in wrong]
        for direction, backward in (("forward", False), ("forward and backward", True)):
            times = alternate([partial(run, backward) for run in runs], device, seconds)
            base = statistics.median(times[0])
            lines = []
            for way, measured in zip(sound, times, strict=True):
                low, middle, high = statistics.quantiles(measured, n=4)
                lines.append(
                    f"| {size.name} | {direction} | {way.name} | {middle * 1e3:.2f} "
                    f"| {low * 1e3:.2f}-{high * 1e3:.2f} | {base / middle:.1f}x |"
                )
            if device.type == "cuda":
                lines.append(f"| {size.name} | {direction} | memory traffic alone | {floor(given, backward):.3f} | | |")
            yield lines
    yield [""]


def make(size: Size, device: torch.device, dtype: torch.dtype) -> Given:
    """Samples a few positions around each query, as of a trained network; the decoder's references are boxes."""
    torch.manual_seed(0)
    positions = sum(height * width for height, width in size.shapes)
    queries = size.queries or positions
    points = POINTS * len(size.shapes)
    references = torch.rand(size.batch, queries, 4) * 0.5 + 0.1
    if size.queries is None:
        references = torch.cat([centres(*shape) for shape in size.shapes])[None].expand(size.batch, -1, -1)
    tensors = (
        torch.randn(size.batch, positions, HEADS, CHANNELS),
        offsets_off_the_grid(references, size.shapes, torch.randn(size.batch, queries, HEADS, points, 2) * 2),
        torch.randn(size.batch, queries, HEADS, points),
        torch.randn(size.batch, queries, HEADS * CHANNELS),
    )
    value, offsets, logits, grad = (tensor.to(device, dtype) for tensor in tensors)
    given = Given(size.shapes, references.to(device), value, offsets, logits, grad)
    for name in NAMES:
        getattr(given, name).requires_grad_()
    return given


def offsets_off_the_grid(references: Tensor, shapes: tuple[tuple[int, int], ...], offsets: Tensor) -> Tensor:
    """Moved so that no sample is within 0.01 of a position, where gradients jump and float32 may be on another side."""
    frames = frames_of(references.double(), shapes, (POINTS,) * len(shapes))
    place, scale = (frame[:, :, None] for frame in frames)
    samples = place + scale * offsets
    corners = samples.floor()
    return (corners + 0.01 + 0.98 * (samples - corners) - place) / scale


def centres(height: int, width: int) -> Tensor:
    """[h * w, 2], xy in [0, 1]"""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def runner(way: Way, given: Given) -> Run:
    form = torch.compile(deformable_attention, fullgraph=True) if way.compiled else deformable_attention
    points = (POINTS,) * len(given.shapes)

    def run(backward: bool) -> tuple[Tensor, ...]:
        torch.use_deterministic_algorithms(way.deterministic)
        with kernels(way.kernels), torch.set_grad_enabled(backward):
            output = form(given.value, given.shapes, given.references, given.offsets, given.logits, points)
            if not backward:
                return (output,)
            return torch.autograd.grad(output, (given.value, given.offsets, given.logits), given.grad)

    return run


def faults(ways: list[tuple[Way, Run]], given: Given, dtype: torch.dtype) -> dict[str, str]:
    """What is wrong with whom: a form whose output or gradients are not those of grid_sample in float64.

    Leaves if that is the first one, which the others are compared with.
    """
    tensors = {name: getattr(given, name).detach().double().requires_grad_() for name in NAMES}
    precise = given._replace(references=given.references.double(), grad=given.grad.double(), **tensors)
    reference = runner(Way("reference", "grid_sample"), precise)
    wrong: dict[str, str] = {}
    for backward, names in ((False, ("output",)), (True, NAMES)):
        expected = reference(backward)
        for way, run in ways:
            for name, here, there in zip(names, run(backward), expected, strict=True):
                far = ((here.double() - there).norm() / there.norm()).item()
                if not far <= TOLERANCE[dtype]:
                    what = name if name == "output" else f"gradient of {name}"
                    wrong.setdefault(way.name, f"its {what} differs by {far:.1e} of the reference")
    gc.collect()
    base = ways[0][0].name
    if base in wrong:
        sys.exit(f"{base}: {wrong[base]}; no time is shown")
    return wrong


def alternate(runs: list[Callable[[], object]], device: torch.device, seconds: float) -> list[list[float]]:
    """Seconds of each, one after the other, again and again; at least three times each."""
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while len(times[0]) < 3 or time.perf_counter() < end:
        for run, measured in zip(runs, times, strict=True):
            run()  # finds the caches as it leaves them, not as another form did
            measured.append(timed(run, device))
    return times


def timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def floor(given: Given, backward: bool) -> float:
    """ms: each number that is given read once, each that is asked for written once, at the bandwidth of a copy.

    Backward reads what is given and the output's gradient again, and writes the gradients.
    """
    inputs = [given.value, given.offsets, given.logits, given.references]
    moved = sum(tensor.nbytes for tensor in [*inputs, given.grad])
    if backward:
        moved += sum(tensor.nbytes for tensor in [*inputs, given.grad, given.value, given.offsets, given.logits])
    return moved / bandwidth() * 1e3


def bandwidth() -> float:
    """Bytes per second, read and written, of copying 1 GB on the CUDA device."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    fastest = min(timed(lambda: target.copy_(source), source.device) for _ in range(10))
    return 2 * source.nbytes / fastest


def footer() -> list[str]:
    load = os.getloadavg()[0]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores ({processor()}), load {load:.1f}"
    arguments = " ".join(["python", "tools/benchmark_ops.py", *sys.argv[1:]])
    return [
        f"{HEADS} heads of {CHANNELS} channels, {POINTS} points on each level. Outputs and gradients of every form",
        "are those of `grid_sample` in float64. Medians and quartiles of turns A B A B ...; ratios are of the medians.",
        "",
        f"{machine}; Python {platform.python_version()}, PyTorch {torch.__version__}; commit {commit()}.",
        "",
        f"    {arguments}",
    ]


if __name__ == "__main__":
    main()
