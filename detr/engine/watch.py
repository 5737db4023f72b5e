"""Losses and gradient norms of the steps: kept on the device until someone looks, never let past if not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detr.errors import InputError


class Diverged(InputError):
    """A loss or a gradient is NaN or infinite: training cannot go on."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step}: {reason}")
        self.step, self.reason = step, reason


@dataclass(frozen=True)
class Seen:
    """What a step was like."""

    step: int
    losses: dict[str, float]
    norm: float  # of all gradients together, before clipping


class Watch:
    """`blocked` becomes 1 with the first step that is not finite and stays so: an optimizer that has it as `found_inf`
    takes neither that step nor a later one, without the host having to wait. `look` reads what happened and raises.

    With fp16, single gradients that are infinite are part of the method (the scaler skips the step): there only the
    losses must be finite.
    """

    def __init__(self, device: torch.device, *, gradients_may_overflow: bool) -> None:
        self.blocked = torch.zeros((), device=device)
        self.last: Seen | None = None  # the newest step that was looked at
        self._overflow_is_fine = gradients_may_overflow
        self._pending: list[tuple[int, tuple[str, ...], Tensor, Tensor]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def note(self, step: int, losses: Mapping[str, Tensor], norm: Tensor) -> None:
        """Before the optimizer's step."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        judged = values.sum() if self._overflow_is_fine else values.sum() + norm
        self.blocked = torch.maximum(self.blocked, (~judged.isfinite()).float())
        self._pending.append((step, tuple(losses), values, norm))

    def look(self) -> list[Seen]:
        """The steps since the last look, read in one go. Diverged names the first that is not finite."""
        if not self._pending:
            return []
        row = torch.cat(
            [torch.cat([values, norm.detach().float().view(1)]) for _, _, values, norm in self._pending]
        ).tolist()
        seen = []
        for step, names, _, _ in self._pending:
            losses, norm, row = dict(zip(names, row, strict=False)), row[len(names)], row[len(names) + 1 :]
            self._judge(step, losses, norm)
            self.last = Seen(step, losses, norm)
            seen.append(self.last)
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
        self._pending.clear()
        return seen

    def sums(self) -> dict[str, tuple[float, int]]:
        """Each loss summed over the steps that had it, and their number, since the last `means`."""
        self.look()
        return {name: (total, self._counts[name]) for name, total in self._sums.items()}

    def go_on(self, sums: Mapping[str, tuple[float, int]]) -> None:
        """With the sums of an epoch that began before."""
        self._sums = {name: float(total) for name, (total, _) in sums.items()}
        self._counts = {name: int(count) for name, (_, count) in sums.items()}

    def means(self) -> dict[str, float]:
        """The mean of each loss since the last call, over the steps that had it."""
        self.look()
        result = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return result

    def _judge(self, step: int, losses: Mapping[str, float], norm: float) -> None:
        broken = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
        if not broken and not math.isfinite(norm) and not self._overflow_is_fine:
            broken = [f"the norm of the gradients is {norm}, though every loss of this process is finite"]
        if broken:
            raise Diverged(
                step,
                f"{broken[0]}{f' (and {len(broken) - 1} more losses)' if len(broken) > 1 else ''}; "
                "the step was not taken; a smaller learning rate, a longer warm-up or train.amp=off may help",
            )
