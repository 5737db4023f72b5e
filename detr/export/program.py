"""A network recorded by `torch.export`: what every kind of file is made of."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr.export.about import About
from detr.export.whole import Whole
from detr.models import Network
from detr.ops import kernels


@dataclass(frozen=True, eq=False)
class Recorded:
    """`program` takes tensors by name; it gives `answers`, then the borders of its stages."""

    program: Any  # torch.export.ExportedProgram
    inputs: dict[str, Tensor]  # those that it was recorded with
    open_sizes: dict[str, dict[int, Any]]  # the axes that were left open
    names: tuple[str, ...]  # of all that it gives
    answers: tuple[str, ...]


def recorded(network: Network, about: About) -> Recorded:
    """The network as it is: with the layers, queries and input of its settings."""
    whole = Whole(copy.deepcopy(network).cpu().deploy(), about).eval()
    inputs = example(about)
    axes = open_axes(about)
    with torch.no_grad(), kernels("grid_sample"), quiet():
        program = torch.export.export(whole, (), kwargs=inputs, dynamic_shapes=axes, strict=False)
    names = tuple(program.call_spec.out_spec.context)
    return Recorded(program, inputs, axes, names, answers_of(about))


def answers_of(about: About) -> tuple[str, ...]:
    return ("logits", "boxes") if about.form.max_det is None else ("scores", "labels", "boxes")


def example(about: About) -> dict[str, Tensor]:
    """Inputs of two images, or of one where the number is not open."""
    batch = 2 if about.form.open_batch else 1
    height, width = about.size
    channels = about.config.input.channels
    if about.form.preprocessing:
        return {"images": torch.zeros(batch, 72, 88, channels, dtype=torch.uint8)}
    inputs = {"images": torch.zeros(batch, channels, height, width)}
    if about.takes_padding:
        padding = torch.zeros(batch, height, width, dtype=torch.bool)
        padding[:, height // 2 :] = True
        inputs["padding"] = padding
    if about.form.max_det is not None:
        inputs["sizes"] = torch.full((batch, 2), 64)
    return inputs


def open_axes(about: About) -> dict[str, dict[int, Any]]:
    batch = {0: torch.export.Dim.DYNAMIC} if about.form.open_batch else {}
    sides = [1, 2] if about.form.preprocessing else [2, 3] if about.form.open_size else []
    axes = {name: dict(batch) for name in example(about)}
    axes["images"] |= dict.fromkeys(sides, torch.export.Dim.DYNAMIC)
    if "padding" in axes and about.form.open_size:
        axes["padding"] |= dict.fromkeys((1, 2), torch.export.Dim.DYNAMIC)
    return axes


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own use of what PyTorch is about to drop, and on what it doesn't fold."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
