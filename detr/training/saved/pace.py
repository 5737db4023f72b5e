"""How often the state of a training is saved within an epoch."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from detr.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Pace:
    """Due after so many seconds or so many steps since the last time; never, where neither is said."""

    seconds: float | None = None
    steps: int | None = None
    _since: float = field(default_factory=time.monotonic)
    _at: int = 0

    def is_due(self, step: int) -> bool:
        by_time = self.seconds is not None and time.monotonic() - self._since >= self.seconds
        return by_time or (self.steps is not None and step - self._at >= self.steps)

    def is_older_than(self, seconds: float, step: int) -> bool:
        """Whether that was so many seconds ago, and at an earlier step."""
        return step > self._at and time.monotonic() - self._since >= seconds

    def saved(self, step: int) -> None:
        self._since, self._at = time.monotonic(), step


def pace(text: str) -> Pace:
    """`10m`, `90s`, `1h` or a number of steps; `0` for only after each epoch. UsageError for anything else."""
    found = re.fullmatch(r"(\d+)([smh]?)", text.strip())
    if found is None:
        raise UsageError(f"--save-every {text}: expected a time such as 10m, 90s or 1h, or a number of steps")
    number, unit = int(found[1]), found[2]
    if not number:
        return Pace()
    return Pace(seconds=number * _UNITS[unit]) if unit else Pace(steps=number)
