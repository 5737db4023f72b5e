"""How fast models are on this machine, alone or against how well they find; with what the numbers were measured on.

A run is a batch from prepared images on the device to boxes in pixels. `whole` begins with the bytes of a JPEG picture
of 640 x 480 instead: decoding and preparing are in it, one picture after the other. All that is compared takes turns
(A B A B ...), so that what else the machine does hits all of it alike.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detr.data.coco import CocoDataset
from detr.engine.cost import TYPICAL
from detr.errors import UsageError, did_you_mean
from detr.evaluation.validate import validate
from detr.image import InputConfig, as_input, padded, resized
from detr.image_file import read_image
from detr.models import Network
from detr.models.postprocess import select
from detr.runtime.memory import Memory
from detr.runtime.processor import processor
from detr.runtime.runner import Runner

_FEWEST_RUNS = 10
_QUERIES = (50, 100, 200, 300, 500, 900)
KNOBS = ("layers", "queries")


@dataclass(eq=False)
class Case:
    """What is to be measured: `make` makes it ready, which is not timed."""

    name: str
    make: Callable[[], Runner]
    input: InputConfig
    batch: int
    layers: int
    queries: int
    parameters: int
    gflops: float

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that the network sees: what an image of 640 x 480 becomes."""
        return self.input.size_of(*TYPICAL)


@dataclass(eq=False)
class Point:
    """A case, measured."""

    case: Case
    runner: str  # in words
    milliseconds: list[float] = field(default_factory=list)  # of each run, in the order they were made
    whole: list[float] = field(default_factory=list)  # the same from the bytes of pictures on
    memory: int | None = None  # bytes at the most, beyond what was taken before it was made ready
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
        return 1000 * self.case.batch / self.median

    def to_json(self) -> dict[str, Any]:
        height, width = self.case.size
        return {
            "name": self.case.name,
            "runner": self.runner,
            "batch": self.case.batch,
            "input": {"height": height, "width": width},
            "layers": self.case.layers,
            "queries": self.case.queries,
            "parameters": self.case.parameters,
            "gflops": round(self.case.gflops, 3),
            "runs": len(self.milliseconds),
            "median_ms": round(self.median, 4),
            "p95_ms": round(self.p95, 4),
            "whole_ms": round(median(self.whole), 4),
            "images_per_second": round(self.images_per_second, 3),
            "memory_bytes": self.memory,
            "AP": self.ap,
        }


def measure(
    cases: Sequence[Case], *, seconds: float = 3.0, warmup: int = 5, say: Callable[[str], None] | None = None
) -> list[Point]:
    """All cases in turn until each has had so many seconds, and ten runs at least; `warmup` runs before don't count."""
    points, runners = [], []
    for case in cases:
        if say is not None:
            say(f"making {case.name} ready: {case.size[1]} x {case.size[0]}, batch {case.batch}")
        memory = Memory()
        runner = case.make()
        points.append(Point(case, runner.name))
        runners.append(runner)
        for _ in range(max(1, warmup)):
            _whole(runner, case)
            _run(runner, _images(case, runner))
        points[-1].memory = memory.most(runner.device)
    spent = 0.0
    while len(points[0].milliseconds) < _FEWEST_RUNS or spent < seconds * len(points):
        for point, runner in zip(points, runners, strict=True):
            images = _images(point.case, runner)
            point.milliseconds.append(_timed(_run, runner, images))
            point.whole.append(_timed(_whole, runner, point.case))
            spent += (point.milliseconds[-1] + point.whole[-1]) / 1000
    return points


def measure_ap(runner: Runner, case: Case, dataset: CocoDataset, *, workers: int) -> float:
    """As `detr val` measures it."""
    return validate(runner, dataset, batch_size=8, workers=workers, input=case.input)[0].ap


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


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on and with."""
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
    }


def in_words(made_on: dict[str, Any]) -> str:
    """`cpu (AMD EPYC, 2 cores, 2 threads, load 0.4), torch 2.15, Python 3.11, Linux`"""
    what = made_on["gpu"] or (
        f"{made_on['processor']}, {made_on['cores']} cores, {made_on['threads']} threads, load {made_on['load']}"
    )
    cuda = f", CUDA {made_on['cuda']}" if made_on["cuda"] else ""
    return (
        f"{made_on['device']} ({what}), torch {made_on['torch']}{cuda}, Python {made_on['python']}, {made_on['system']}"
    )


def warning_of_load(made_on: dict[str, Any]) -> str | None:
    """What to say of a machine whose cores were at work already; None where they were not."""
    if made_on["load"] is None or made_on["load"] <= 0.5 * (made_on["cores"] or 1):
        return None
    return f"warning: this machine is busy (load {made_on['load']}, {made_on['cores']} cores): times will be too long"


def _timed(work: Callable[..., None], *given: Any) -> float:
    start = time.perf_counter()
    work(*given)
    return 1000 * (time.perf_counter() - start)


def _images(case: Case, runner: Runner) -> Tensor:
    return torch.rand(case.batch, case.input.channels, *case.size, device=runner.device)


@torch.inference_mode()
def _run(runner: Runner, images: Tensor) -> None:
    """One batch, waited for: the boxes are on the host when this returns."""
    for found in select(runner(images), [TYPICAL] * len(images), scoring=runner.scoring):
        found.boxes.cpu()


@torch.inference_mode()
def _whole(runner: Runner, case: Case) -> None:
    """The same from the bytes of a picture on."""
    pictures = [resized(read_image(BytesIO(_picture())), case.input) for _ in range(case.batch)]
    images, padding = padded(pictures)
    images = as_input(images.to(runner.device, non_blocking=True), padding, case.input)
    for found in select(runner(images, padding), [TYPICAL] * case.batch, scoring=runner.scoring):
        found.boxes.cpu()


@functools.cache
def _picture() -> bytes:
    """A JPEG with soft shapes and some noise, about as large as photographs are."""
    draw = np.random.default_rng(0)
    soft = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        TYPICAL[::-1], Image.Resampling.BICUBIC
    )
    noisy = np.asarray(soft, dtype=np.int16) + draw.integers(-12, 13, (*TYPICAL, 3))
    file = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
