"""A step of several processes that does not end: said after a minute, as one may wait for another that stands still."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext

from detr.patience import FIRST, Patience
from detr.runtime.distributed import Team
from detr.training.saved.checkpoint import Counters


class LongSteps:
    """Watches the steps of a team, each in a block of `step()`; alone, a process waits for nobody.

    It only tells: the process that stands still ends by itself where it can (`train.longest_wait`), and then all do;
    otherwise the library that connects them gives up (gloo after 30 minutes, NCCL after 10).
    """

    def __init__(self, team: Team, counters: Counters, *, first: float = FIRST) -> None:
        self._team, self._counters = team, counters
        patience = Patience(longest=0, first=first, tell=self._tell, give_up=lambda: None)
        self._patience = None if team.size == 1 else patience
        self._held = ExitStack()

    def __enter__(self) -> LongSteps:
        if self._patience is not None:
            self._held.enter_context(self._patience)
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    def step(self) -> AbstractContextManager[None]:
        return nullcontext() if self._patience is None else self._patience.waiting()

    def _tell(self, seconds: float) -> None:
        print(
            f"warning: process {self._team.rank + 1} of {self._team.size}: step {self._counters.step + 1} has lasted "
            f"{seconds:.3g} s so far; if no other line follows, another process or its machine stands still",
            file=sys.stderr,
            flush=True,
        )
