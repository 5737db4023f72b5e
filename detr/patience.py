"""How long something is waited for: said after a while, again whenever that has doubled, given up after longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

FIRST, LONGEST = 60.0, 1800.0  # seconds until it is first said, and until it is given up
_PAUSE = 1.0  # seconds from one look to the next


class Patience:
    """While the block `waiting` lasts, `tell(seconds)` says so; after `longest` seconds `give_up()` is called, once.

    `longest` 0: never. Both are called in a thread of their own, which is there as long as the `with` of this object.
    Seconds in which this process was itself held still don't count.
    """

    def __init__(
        self, *, longest: float, tell: Callable[[float], None], give_up: Callable[[], None], first: float = FIRST
    ) -> None:
        self._longest, self._tell, self._give_up = longest, tell, give_up
        self._first = min(first, longest / 2) if longest else first
        self._pause = min(_PAUSE, self._first / 4)
        self._waits = 0  # begun so far
        self._is_waiting = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="detr-patience")

    def __enter__(self) -> Patience:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> Literal[False]:
        self._closed.set()
        return False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done in this block is waited for."""
        self._waits += 1
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False

    def _watch(self) -> None:
        wait, waited, due = 0, 0.0, self._first
        looked = time.monotonic()
        while not self._closed.wait(self._pause):
            passed, looked = min(time.monotonic() - looked, 2 * self._pause), time.monotonic()
            if wait != self._waits or not self._is_waiting:
                wait, waited, due = self._waits, 0.0, self._first
                continue
            waited += passed
            if self._longest and waited >= self._longest:
                return self._give_up()
            if waited >= due:
                self._tell(waited)
                due *= 2
