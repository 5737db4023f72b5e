"""Where an exported file begins to differ from its network: the first stage that hands on something else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detr.bands import Bands
from detr.export.agreement import Tolerance, agreement
from detr.export.file_runner import FileRunner
from detr.export.passing import Passed, by_file, by_network, found_in
from detr.export.stages import POSITIONS, STAGES, START, stage_of
from detr.models import Network

_PICTURE = 5e-3
"""Of pictures and what is made of them, in every kind of file: one of 255 levels here and there, by rounding."""


@dataclass(frozen=True)
class Stage:
    """How far what a stage hands on is from what PyTorch makes of what the file handed to it."""

    name: str
    error: float  # as `allowed`
    allowed: float

    @property
    def diverges(self) -> bool:
        return not self.error <= self.allowed  # NaN does


@dataclass(frozen=True, eq=False)
class Trace:
    """One picture, stage by stage."""

    stages: tuple[Stage, ...]
    alike: Passed  # what the network finds, given the file's image and its choice of queries
    theirs: Passed

    @property
    def first(self) -> Stage | None:
        return next((stage for stage in self.stages if stage.diverges), None)


def trace(network: Network, runner: FileRunner, picture: Bands, tolerance: Tolerance) -> Trace:
    about = runner.about
    theirs = by_file(runner, picture, watched=True)
    plain = by_network(network, picture, about)
    alike = by_network(network, picture, about, like=theirs.between)
    stages = []
    for name in STAGES:
        if name == "selection":
            if POSITIONS in theirs.between and alike.ranking is not None:
                stages.append(
                    Stage(name, max(_margin(theirs, alike), _error_of_start(theirs, alike)), tolerance.margin)
                )
        elif name == "postprocessing":
            ours = found_in(theirs.between, picture, about, network)
            missed = 1 - agreement(ours, theirs.found, tolerance, sure=None).share
            stages.append(Stage(name, missed, 1 - tolerance.share))
        else:
            early = name in ("decode", "resize", "normalise")
            expected = plain if early else alike
            allowed = _PICTURE if early else tolerance.stage
            stages.append(Stage(name, _error(name, theirs, expected), allowed))
    return Trace(tuple(stages), alike, theirs)


def _error(stage: str, theirs: Passed, ours: Passed) -> float:
    names = [name for name in ours.between if stage_of(name) == stage and name in theirs.between]
    return max((_apart(theirs.between[name], ours.between[name]) for name in names), default=0.0)


def _apart(theirs: Tensor, ours: Tensor) -> float:
    """Root mean square of the difference over that of the values; infinite for other shapes."""
    if theirs.shape != ours.shape:
        return float("inf")
    theirs, ours = theirs.double(), ours.double()
    difference = torch.where(theirs == ours, 0.0, theirs - ours)
    return float(difference.square().mean().sqrt() / ours.square().mean().sqrt().clamp(min=1e-12))


def _margin(theirs: Passed, ours: Passed) -> float:
    """The most that one of the file's choices ranks above or below PyTorch's; infinite where it chose one twice."""
    chosen, ranking = theirs.between[POSITIONS], ours.ranking
    assert ranking is not None
    if len(chosen[0].unique()) < chosen.shape[1]:
        return float("inf")
    best, taken = ranking.topk(chosen.shape[1], dim=1).values, ranking.gather(1, chosen)
    return float(torch.where(taken == best, 0.0, (taken - best).abs()).max())


def _error_of_start(theirs: Passed, ours: Passed) -> float:
    """Of the boxes that the queries start from, which are logits and infinite on the border."""
    if START not in theirs.between:
        return 0.0
    return float((theirs.between[START].sigmoid() - ours.between[START].sigmoid()).abs().max())
