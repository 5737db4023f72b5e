"""Predictions and targets by rule, small ones, for which the official criteria were run (tools/record_criteria.py).

A case says `arch`, `counts` of targets per image, `seed`, `queries`, and sometimes `criterion` settings, `epoch` and
`denoising` groups. Three decoder layers, six classes; where an arch has them start boxes, proposals and edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr.records import Denoising, Edges, Output, Predictions, Target

CLASSES, LAYERS, BINS = 6, 3, 33
FINE = ("dfine", "deimv2")


@dataclass(eq=False)
class Case:
    output: Output
    targets: list[Target]
    parts: dict[str, Tensor]  # everything that has a gradient


@dataclass
class _Draw:
    generator: np.random.Generator
    parts: dict[str, Tensor] = field(default_factory=dict)

    def normal(self, name: str, *shape: int) -> Tensor:
        return self._part(name, self.generator.standard_normal(shape))

    def boxes(self, name: str, *shape: int) -> Tensor:
        return self._part(name, self.plain_boxes(*shape))

    def plain_boxes(self, *shape: int) -> np.ndarray:
        """[..., 4] cxcywh within the image"""
        centre, size = self.generator.random((2, *shape, 2))
        return np.concatenate([0.25 + 0.5 * centre, 0.05 + 0.4 * size], -1)

    def _part(self, name: str, values: np.ndarray) -> Tensor:
        self.parts[name] = torch.from_numpy(values).requires_grad_()
        return self.parts[name]

    def predictions(self, name: str, batch: int, queries: int, slots: int, start: Tensor | None = None) -> Predictions:
        logits = self.normal(f"{name}.logits", batch, queries, slots)
        boxes = self.boxes(f"{name}.boxes", batch, queries)
        if start is None:
            return Predictions(logits, boxes)
        return Predictions(logits, boxes, Edges(self.normal(f"{name}.edges", batch, queries, 4, BINS), start.detach()))


def made(case: Mapping[str, Any]) -> Case:
    arch, counts, queries = case["arch"], case["counts"], case["queries"]
    draw = _Draw(np.random.default_rng(case["seed"]))
    batch, slots = len(counts), CLASSES + (arch == "detr")
    targets = [
        Target(torch.from_numpy(draw.generator.integers(CLASSES, size=n)), torch.from_numpy(draw.plain_boxes(n)), place)
        for place, n in enumerate(counts)
    ]
    start = draw.predictions("start", batch, queries, slots) if arch in FINE else None
    fixed = None if start is None else start.boxes
    layers = tuple(draw.predictions(f"layer {i}", batch, queries, slots, fixed) for i in range(LAYERS))
    proposals = None
    if arch != "detr":
        proposals = draw.predictions("proposals", batch, 3 * queries if arch == "deformable_detr" else queries, slots)
    denoising = _denoising(draw, case, slots) if case.get("denoising") else None
    return Case(Output(layers, proposals, denoising, start), targets, draw.parts)


def _denoising(draw: _Draw, case: Mapping[str, Any], slots: int) -> Denoising:
    """Each group has as many positive copies as the fullest image has targets, and as many negative ones."""
    counts, groups = case["counts"], case["denoising"]
    batch, most = len(counts), max(counts)
    queries = 2 * most * groups
    start = draw.predictions("noised start", batch, queries, slots) if case["arch"] in FINE else None
    fixed = None if start is None else start.boxes
    layers = tuple(draw.predictions(f"noised layer {i}", batch, queries, slots, fixed) for i in range(LAYERS))
    steps = 2 * most * torch.arange(groups)[:, None]
    return Denoising(
        layers,
        tuple((steps + torch.arange(n)).flatten() for n in counts),
        tuple(torch.arange(n).repeat(groups) for n in counts),
        groups,
        start,
    )
