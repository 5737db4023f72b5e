"""The proof that a run is gone on with exactly: a few steps from its saved state, taken twice, bit against bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from detr.data.coco import CocoDataset
from detr.errors import InputError, counted
from detr.runtime.determinism import same_bits
from detr.runtime.device import choose_device, default_workers
from detr.runtime.distributed import Team, joined
from detr.runtime.interruption import Interruption
from detr.training.assembly import build_run
from detr.training.epoch import begin_epoch, end_epoch, set_rates_at
from detr.training.learning.sharding import own
from detr.training.recipe import Recipe
from detr.training.run import Run, Say, say_nothing
from detr.training.saved.checkpoint import Resumed, state_tensors
from detr.training.saved.circumstances import circumstances, require_unchanged
from detr.training.saved.generations import newest
from detr.training.second_stage import begin_second_stage
from detr.training.step import take_step

STEPS = 4


@dataclass(frozen=True)
class Repeated:
    """Steps taken twice that gave the same bits."""

    since: int  # step of the saved state
    steps: int
    tensors: int

    @property
    def text(self) -> str:
        return (
            f"{counted(self.steps, 'step')} after step {self.since}, taken twice: all {self.tensors:,} tensors of "
            "network, average and optimizer have the same bits"
        )


def repeat(
    recipe: Recipe,
    *,
    train_set: CocoDataset,
    val_set: CocoDataset | None,
    out: str | PathLike[str],
    steps: int = STEPS,
    device: str = "auto",
    workers: int | None = None,
    allow_changes: bool = False,
    say: Say = print,
) -> Repeated:
    """Take `steps` steps from the state in the run folder `out` twice, each from the file, and compare all tensors.

    The second time begins with other random states and without loader processes, neither of which may matter. Nothing
    is written, no epoch evaluated. InputError names the first tensor that differs, and whatever `train` refuses.
    """
    with same_bits(recipe.train.deterministic), joined(choose_device(device)) as team:
        say = say if team.leads else say_nothing
        state = newest(Path(out), say)
        require_unchanged(
            state, recipe, circumstances(train_set, val_set, team, recipe.train.teacher), allow=allow_changes, say=say
        )
        workers = default_workers(team.size) if workers is None else workers

        def ends(workers: int, seed: int) -> dict[str, Tensor]:
            again = newest(Path(out), say_nothing)
            run = build_run(
                recipe, team=team, out=Path(out), train_set=train_set, weights=None, resumed=again,
                interruption=Interruption({}), say=say_nothing,
            )  # fmt: skip
            torch.manual_seed(seed)
            return _ends(run, train_set, workers, steps)

        first, second = ends(workers, 1), ends(0, 2)
        wrong = differing(first, second)
        if team.largest(len(wrong)):
            raise InputError(_complaint(first, second, wrong, state, team))
        return Repeated(state.counters.step, steps, len(first))


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not the same in every bit (0 and -0 differ, a NaN is as another of its bits)."""
    return [
        name for name in dict.fromkeys([*one, *other])
        if name not in one or name not in other or not torch.equal(_bits(one[name]), _bits(other[name]))
    ]  # fmt: skip


def _ends(run: Run, train_set: CocoDataset, workers: int, steps: int) -> dict[str, Tensor]:
    """Copies of all tensors after so many steps."""
    _advance(run, train_set, workers, steps)
    run.watch.look()
    tensors = state_tensors(run.network, run.average, run.optimizer, run.names)
    return {name: own(value).detach().cpu().clone() for name, value in tensors.items()}


def _advance(run: Run, train_set: CocoDataset, workers: int, steps: int) -> None:
    """As the training program does, into the next epochs where the one under way has fewer steps left."""
    last = run.counters.step + steps
    while True:
        begin_second_stage(run)
        steps_per_epoch, groups = begin_epoch(run, train_set, workers)
        for pieces in islice(groups, last - run.counters.step):
            set_rates_at(run, run.counters.step, steps_per_epoch)
            take_step(run, pieces)
        if run.counters.step == last:
            return
        end_epoch(run)


def _bits(value: Tensor) -> Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)


def _complaint(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], wrong: list[str], state: Resumed, team: Team
) -> str:
    if not wrong:
        return f"{state.path}: repeated steps differ in another process than this one"
    name = wrong[0]
    how = "it is missing once"
    if name in first and name in second:
        how = f"by up to {float((first[name].double() - second[name].double()).abs().max()):.3g}"
    hint = "; --deterministic takes only algorithms that repeat themselves" if team.device.type == "cuda" else ""
    return (
        f"{state.path}: the steps after it, taken twice, differ in {len(wrong):,} of {len(first):,} tensors; "
        f"the first is {name}, {how}{hint}"
    )
