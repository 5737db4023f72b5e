"""Ctrl-C and SIGTERM while training: the step is finished and saved, then the signal does what it always does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """`number` is the signal that came, 0 as long as none has."""

    number = 0

    def __bool__(self) -> bool:
        return self.number != 0


@contextmanager
def noticed() -> Iterator[Interruption]:
    """Within the block a first SIGINT or SIGTERM is only noted; a second one acts at once, as it would have outside.

    Outside the main thread signals can't be noted, and act as ever.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        interruption.number = number
        restore()

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
