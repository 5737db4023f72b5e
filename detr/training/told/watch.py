"""Losses and gradient norms of the steps: kept on the device until someone looks, never let past if not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detr.errors import InputError
from detr.runtime.distributed import Team


class Diverged(InputError):
    """Losses or gradients are NaN or infinite, again and again, or the weights are: training cannot go on."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step}: {reason}")
        self.step, self.reason = step, reason


@dataclass(frozen=True)
class Seen:
    """What a step was like."""

    step: int
    losses: dict[str, float]
    norm: float  # of all gradients together, before clipping
    skipped: int = 0  # 0 where the step was taken, else how many steps in a row were left out, this one among them

    @property
    def reason(self) -> str:
        """Why it was left out."""
        broken = [f"{name} is {value}" for name, value in self.losses.items() if not math.isfinite(value)]
        if not broken:
            return f"the norm of the gradients is {self.norm}, though every loss of this process is finite"
        return f"{broken[0]}{f' (and {len(broken) - 1} more losses)' if len(broken) > 1 else ''}"


class Watch:
    """Tells whether a step may be taken, without the host having to wait; `look` reads what happened.

    All processes of a team tell the same. With fp16, single gradients that are infinite are part of the method: the
    scaler leaves out the step and lowers its scale. That is no fault until the scale is down at 1.
    """

    def __init__(self, team: Team, *, gradients_may_overflow: bool) -> None:
        self.last: Seen | None = None  # the newest step that was taken, of those looked at
        self.skipped = 0  # steps left out so far
        self.in_a_row = 0  # of them, those since the last one that was taken
        self._team, self._overflow_is_fine = team, gradients_may_overflow
        self._pending: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._unanswered: list[Seen] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def note(self, step: int, losses: Mapping[str, Tensor], norm: Tensor, scale: Tensor) -> Tensor:
        """Before the optimizer's step -> whether it is to be left out, [] on the device.

        `norm` is that of the gradients of all processes, `scale` the scaler's.
        """
        values = torch.stack([value.detach().float() for value in losses.values()])
        broken = ~values.sum().isfinite()
        if self._overflow_is_fine:  # else one process's loss is in the gradients of all
            broken = self._team.any(broken)
        broken = broken | (~norm.isfinite() & (scale <= 1))
        row = torch.cat([values, torch.stack([norm.detach().float(), broken.float()])])
        self._pending.append((step, tuple(losses), row))
        return broken

    def look(self) -> list[Seen]:
        """The steps since the last look, read in one go."""
        if not self._pending:
            return []
        numbers = torch.cat([row for _, _, row in self._pending]).tolist()
        seen = []
        for step, names, row in self._pending:
            *losses, norm, broken = numbers[: len(row)]
            numbers = numbers[len(row) :]
            seen.append(self._counted(step, dict(zip(names, losses, strict=True)), norm, broken=bool(broken)))
        self._pending.clear()
        return seen

    def unanswered(self) -> list[Seen]:
        """The steps left out that were looked at since the last call."""
        found, self._unanswered = self._unanswered, []
        return found

    def sums(self) -> dict[str, tuple[float, int]]:
        """Each loss summed over the steps taken that had it, and their number, since the last `means`."""
        self.look()
        return {name: (total, self._counts[name]) for name, total in self._sums.items()}

    def go_on(self, sums: Mapping[str, tuple[float, int]], *, skipped: int = 0, in_a_row: int = 0) -> None:
        """With the sums of an epoch that began before, and the counts of what was left out."""
        self._sums = {name: float(total) for name, (total, _) in sums.items()}
        self._counts = {name: int(count) for name, (_, count) in sums.items()}
        self.skipped, self.in_a_row = skipped, in_a_row

    def means(self) -> dict[str, float]:
        """The mean of each loss since the last call, over the steps taken that had it."""
        self.look()
        result = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return result

    def _counted(self, step: int, losses: dict[str, float], norm: float, *, broken: bool) -> Seen:
        if broken:
            self.skipped += 1
            self.in_a_row += 1
            seen = Seen(step, losses, norm, self.in_a_row)
            self._unanswered.append(seen)
            return seen
        self.in_a_row = 0
        self.last = Seen(step, losses, norm)
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        return self.last
