"""Ctrl-C and SIGTERM: the first unwinds the program, so that files are finished or removed; a later one ends it."""

from __future__ import annotations

import signal
import time
from types import FrameType

_SAME = 1.0  # seconds within which a signal that comes again is the same one: hurried hands, and clusters


class Terminated(BaseException):
    """SIGTERM, which unwinds like Ctrl-C."""


class Stop:
    """From when it is made, `number` is the signal that came, 0 as long as none has. What is ignored stays ignored."""

    number = 0
    _since = 0.0

    def __init__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._came)

    @property
    def code(self) -> int:
        """What the program leaves with: 130 or 143."""
        return 128 + self.number

    def over(self) -> None:
        """Nothing is left to be finished: a signal ends the program as it ends any, while Python tidies up."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) == self._came:
                signal.signal(number, signal.SIG_DFL)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._since = number, time.monotonic()
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated
        if time.monotonic() - self._since > _SAME:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
