"""What travels together through a training: everything a step touches, and how it is saved and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detr.criterion import Criterion, criterion_for
from detr.errors import UsageError, counted
from detr.models import build_model
from detr.models.network import DetectionNetwork
from detr.runtime.device import computes_bfloat16
from detr.runtime.distributed import Team
from detr.runtime.interruption import Interruption
from detr.training.learning.average import Average
from detr.training.learning.lora import merged
from detr.training.learning.optimizer import Group, build_optimizer
from detr.training.learning.sharding import all_whole
from detr.training.learning.teacher import Teacher
from detr.training.recipe import Recipe
from detr.training.saved import checkpoint
from detr.training.saved.checkpoint import Counters, Resumed, state_tensors
from detr.training.saved.generations import put_down
from detr.training.saved.pace import Pace
from detr.training.told.journal import Journal
from detr.training.told.sanity import SanityCard
from detr.training.told.watch import Watch

Say = Callable[[str], None]


def say_nothing(line: str) -> None:
    """Where another process speaks for the team."""


@dataclass(eq=False)
class Run:
    """Everything a step touches."""

    recipe: Recipe
    team: Team
    out: Path
    network: DetectionNetwork
    learner: Any  # the network, or its wrapper in a team
    frozen: list[nn.Module]
    average: Average[DetectionNetwork] | None
    criterion: Criterion
    optimizer: torch.optim.AdamW
    names: list[str]  # of the optimizer's parameters, in its order
    scaler: torch.amp.GradScaler
    precision: Callable[[], AbstractContextManager[Any]]
    watch: Watch
    interruption: Interruption
    say: Say
    counters: Counters = field(default_factory=Counters)
    circumstances: Mapping[str, Any] = field(default_factory=dict)  # what the state remembers of its surroundings
    pace: Pace = field(default_factory=Pace)
    journal: Journal | None = None  # only where the team is led
    card: SanityCard | None = None
    teacher: Teacher | None = None
    keep_folder: Callable[[], None] = lambda: None  # makes `out` anew where someone removed it
    asked: Callable[[], float] | None = None  # the team, for a signal that came to one of it

    @property
    def evaluated(self) -> DetectionNetwork:
        """The network that is evaluated."""
        return self.network if self.average is None else self.average.network

    @property
    def published(self) -> DetectionNetwork:
        """The same as any program reads it, with nothing beside its weights; asked by all processes at once."""
        if not self.sharded:
            return merged(self.evaluated)
        network = build_model(self.recipe.model, classes=self.network.classes)
        network.load_state_dict(all_whole(self.evaluated.state_dict()))
        return network.to(self.team.device).eval()

    @property
    def sharded(self) -> bool:
        """Whether each process has a part of the weights only."""
        return self.recipe.train.shard and self.team.size > 1

    def save_state(self) -> None:
        """As the newest of the run's folder, by the process that leads; others that have all of it need not wait."""
        self._write_state(lambda write: put_down(self.out, write))
        self.pace.saved(self.counters.step)

    def write_state(self, path: Path) -> None:
        """By the process that leads."""
        self._write_state(lambda write: write(path))

    def _write_state(self, put: Callable[[Callable[[Path], None]], object]) -> None:
        if not (self.sharded or self.team.leads):
            return
        tensors = all_whole(state_tensors(self.network, self.average, self.optimizer, self.names))
        if self.team.leads:
            put(lambda path: self._save_resume(path, tensors))

    def _save_resume(self, path: Path, tensors: dict[str, Tensor]) -> None:
        checkpoint.save_resume(
            path,
            tensors,
            classes=self.network.classes,
            average_updates=self.average.updates if self.average is not None else 0,
            scaler=self.scaler,
            counters=self.counters,
            recipe=self.recipe,
            sums=self.watch.sums(),
            skipped=(self.watch.skipped, self.watch.in_a_row),
            circumstances=self.circumstances,
        )

    def restore(self, state: Resumed) -> None:
        """Everything but the counters as it was saved."""
        checkpoint.restore(
            state,
            network=self.network,
            average=self.average,
            optimizer=self.optimizer,
            names=self.names,
            scaler=self.scaler,
        )

    def go_on(self, state: Resumed) -> None:
        """Where a run that was saved left off."""
        self.restore(state)
        self.counters = state.counters
        skipped, in_a_row = state.extras.get("skipped", (0, 0))
        sums = {name: (total, count) for name, total, count in state.extras.get("sums", [])}
        self.watch.go_on(sums, skipped=skipped, in_a_row=in_a_row)
        if self.average is not None and self.counters.decay is not None:
            self.average.set_decay(self.counters.decay)
        done, steps = self.counters.epoch, self.counters.step_in_epoch
        also = f" and {counted(steps, 'step')} of the next" if steps else ""
        self.say(f"going on after epoch {done}{also} ({counted(self.counters.step, 'step')})")

    def close_journal(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def save_if_due(self) -> None:
        """Within an epoch, as often as was asked for."""
        self._save_where(self.pace.is_due(self.counters.step))

    def save_if_older_than(self, seconds: float) -> None:
        """Where the newest state is, and steps were taken since."""
        self._save_where(self.pace.is_older_than(seconds, self.counters.step))

    def _save_where(self, is_due: bool) -> None:
        if self.sharded:
            is_due = bool(self.team.largest(is_due))
        if is_due:
            self.save_if_sound()

    def save_if_sound(self) -> bool:
        """Whether the state was saved: not while steps are being left out, which may be the end."""
        self.watch.look()
        if self.watch.in_a_row:
            return False
        self.save_state()
        return True

    def interrupted(self) -> int:
        """The SIGINT or SIGTERM that came to any process of the team, 0 if none did; asked by all at once."""
        self.asked = self.team.asking_largest(self.interruption.number)
        return round(self.asked())

    def interrupted_before(self) -> int:
        """The same, as all were when this was last called: long answered by now, so that none waits for the others."""
        before, self.asked = self.asked, self.team.asking_largest(self.interruption.number)
        answer = self.asked if self.team.size == 1 else before
        return 0 if answer is None else round(answer())

    def leave_if_interrupted(self, number: int | None = None) -> None:
        """After a signal (by default `interrupted`): save the state, then let it do what it does."""
        number = self.interrupted() if number is None else number
        if not number:
            return
        if self.asked is not None:
            self.asked()  # nothing is left under way
        self.save_state()
        self.team.wait()
        self.say(f"stopped after step {self.counters.step}; go on with: detr train --resume {self.out}")
        self.interruption.act(number)


def assemble(
    recipe: Recipe,
    team: Team,
    out: Path,
    network: DetectionNetwork,
    learner: nn.Module,
    frozen: list[nn.Module],
    groups: list[Group],
    interruption: Interruption,
    say: Say,
    place: DetectionNetwork | None = None,
) -> Run:
    """A run before its first step; `place` is that of the average, where it can't be made here."""
    dtype = precision_of(recipe.train.amp, team.device)
    if recipe.train.shard and dtype is torch.float16:
        raise UsageError("train.shard goes with train.amp=bf16 or off, not with fp16")
    scaler = scaler_for(team.device, enabled=dtype is torch.float16)
    return Run(
        recipe=recipe,
        team=team,
        out=out,
        network=network,
        learner=learner,
        frozen=frozen,
        average=None if recipe.train.average is None else Average(network, recipe.train.average, place=place),
        criterion=criterion_for(network, recipe.criterion),
        optimizer=build_optimizer(groups, recipe.train.optimizer),
        names=[name for group in groups for name in group.names],
        scaler=scaler,
        precision=nullcontext if dtype is None else lambda: torch.autocast(team.device.type, dtype),
        watch=Watch(team, gradients_may_overflow=scaler.is_enabled()),
        interruption=interruption,
        say=say,
    )


def scaler_for(device: torch.device, *, enabled: bool) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(device.type, enabled=enabled)


def precision_of(amp: str, device: torch.device) -> torch.dtype | None:
    """The type of automatic mixed precision; None for none. UsageError for fp16 on a CPU, which has no use for it."""
    if amp == "off" or (amp == "auto" and device.type == "cpu"):
        return None
    if amp == "auto":
        return torch.bfloat16 if device.type == "cuda" and computes_bfloat16(device) else torch.float16
    if amp == "fp16" and device.type == "cpu":
        raise UsageError("train.amp=fp16 needs a GPU; on a CPU use bf16 or off")
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
