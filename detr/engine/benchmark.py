"""How fast a network is on this machine, alone or against how well it finds; with what the numbers were measured on.

A run is a batch on the device, from prepared images to boxes in pixels: the network and its post-processing, without
reading and preparing images.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from detr.data.coco import CocoDataset
from detr.engine.cost import TYPICAL, flops_of, parameters_of
from detr.engine.device import default_workers, half_type
from detr.engine.runner import Runner, TorchRunner
from detr.engine.settings import set_effort
from detr.engine.validate import validate
from detr.errors import UsageError, did_you_mean
from detr.image import InputConfig
from detr.models import Network
from detr.models.postprocess import select

_FEWEST_RUNS = 10
_QUERIES = (50, 100, 200, 300, 500, 900)
KNOBS = ("layers", "queries")


@dataclass(frozen=True)
class Conditions:
    """What a measurement is made under."""

    device: torch.device
    input: InputConfig
    batch: int = 1
    half: bool = False
    warmup: int = 5  # runs that don't count
    seconds: float = 3.0  # runs are counted until so much time has passed, and ten at least

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that the network sees: what an image of 640 x 480 becomes."""
        return self.input.size_of(*TYPICAL)


@dataclass(frozen=True)
class Point:
    """A network with so many layers and queries, measured."""

    name: str
    layers: int
    queries: int
    parameters: int
    gflops: float
    milliseconds: tuple[float, ...]  # of each run, in the order they were made
    batch: int
    ap: float | None = None

    @property
    def median(self) -> float:
        return median(self.milliseconds)

    @property
    def p95(self) -> float:
        """No more than one run in twenty took longer."""
        ranked = sorted(self.milliseconds)
        return ranked[-(-19 * len(ranked) // 20) - 1]

    @property
    def images_per_second(self) -> float:
        return 1000 * self.batch / self.median

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layers": self.layers,
            "queries": self.queries,
            "parameters": self.parameters,
            "gflops": round(self.gflops, 3),
            "runs": len(self.milliseconds),
            "median_ms": round(self.median, 4),
            "p95_ms": round(self.p95, 4),
            "images_per_second": round(self.images_per_second, 3),
            "ap": self.ap,
        }


def settings_to_measure(
    network: Network, *, layers: Sequence[int] = (), queries: Sequence[int] = (), sweep: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """(layers, queries) in order: the values given; of a knob that is swept without any, a range; else what is set.

    UsageError for a knob that there isn't.
    """
    for knob in sweep:
        if knob not in KNOBS:
            raise UsageError(
                f"--sweep {knob}{did_you_mean(knob, KNOBS) or '; expected layers, queries or layers,queries'}"
            )
    own_queries = network.config.num_queries
    if not layers:
        count = len(network.decoder.layers)
        layers = range(1, count + 1) if "layers" in sweep else [network.decoder.eval_layers]
    if not queries:
        fewer = [count for count in _QUERIES if count < own_queries] if "queries" in sweep else []
        queries = [*fewer, own_queries]
    return list(product(sorted(set(layers)), sorted(set(queries))))


def measure(
    network: Network,
    name: str,
    conditions: Conditions,
    *,
    layers: int,
    queries: int,
    dataset: CocoDataset | None = None,
    workers: int | None = None,
) -> Point:
    """Set the network to so many layers and queries (it stays so), time it, and with a data set measure its AP."""
    set_effort(network, layers=layers, queries=queries)
    milliseconds = tuple(_times(network, conditions))
    ap = (
        None
        if dataset is None
        else _ap(network, conditions, dataset, default_workers() if workers is None else workers)
    )
    gflops = flops_of(network, conditions.input) / 1e9
    return Point(name, layers, queries, parameters_of(network), gflops, milliseconds, conditions.batch, ap)


def machine(conditions: Conditions) -> dict[str, Any]:
    """What the numbers were measured on and with."""
    device, height, width = conditions.device, *conditions.size
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": str(device),
        "gpu": gpu,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if gpu else None,
        "type": str(half_type(device) if conditions.half else torch.float32).removeprefix("torch."),
        "batch": conditions.batch,
        "input": [height, width],
    }


def in_words(made_on: dict[str, Any]) -> str:
    """`cpu (AMD EPYC, 2 cores, 2 threads, load 0.4), float32, batch 1, 640 x 640, torch 2.15, Python 3.11, Linux`"""
    what = made_on["gpu"] or (
        f"{made_on['processor']}, {made_on['cores']} cores, {made_on['threads']} threads, load {made_on['load']}"
    )
    height, width = made_on["input"]
    cuda = f", CUDA {made_on['cuda']}" if made_on["cuda"] else ""
    return (
        f"{made_on['device']} ({what}), {made_on['type']}, batch {made_on['batch']}, input {width} x {height}, "
        f"torch {made_on['torch']}{cuda}, Python {made_on['python']}, {made_on['system']}"
    )


def warning_of_load(made_on: dict[str, Any]) -> str | None:
    """What to say of a machine whose cores were at work already; None where they were not."""
    if made_on["load"] is None or made_on["load"] <= 0.5 * (made_on["cores"] or 1):
        return None
    return f"warning: this machine is busy (load {made_on['load']}, {made_on['cores']} cores): times will be too long"


@torch.inference_mode()
def _times(network: Network, conditions: Conditions) -> Iterator[float]:
    """Milliseconds of each run that counts."""
    device, (height, width) = conditions.device, conditions.size
    runner = TorchRunner(network, device=device, half=conditions.half)
    images = torch.rand(conditions.batch, 3, height, width, device=device)
    for _ in range(conditions.warmup):
        _run(runner, images, conditions)
    count, begun = 0, time.perf_counter()
    while count < _FEWEST_RUNS or time.perf_counter() - begun < conditions.seconds:
        start = time.perf_counter()
        _run(runner, images, conditions)
        yield 1000 * (time.perf_counter() - start)
        count += 1


def _run(runner: Runner, images: Tensor, conditions: Conditions) -> None:
    """One batch, waited for: the boxes are on the device when this returns."""
    select(runner(images), [TYPICAL] * len(images), scoring=runner.scoring)
    if conditions.device.type == "cuda":
        torch.cuda.synchronize(conditions.device)
    elif conditions.device.type == "mps":
        torch.mps.synchronize()


def _ap(network: Network, conditions: Conditions, dataset: CocoDataset, workers: int) -> float:
    """AP in percent, as `detr val` measures it."""
    metrics, _ = validate(
        TorchRunner(network, device=conditions.device, half=conditions.half),
        dataset,
        batch_size=8,
        workers=workers,
        input=conditions.input,
    )
    return round(100 * metrics.ap, 2)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
