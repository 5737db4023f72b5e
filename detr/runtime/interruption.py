"""Ctrl-C and SIGTERM while training: the step is finished and saved, then the signal does what it always does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TELL_AFTER = 5.0  # seconds after a signal, to say what is waited for
_SAME = 1.0  # seconds within which a signal that comes again is the same one


class Interruption:
    """`number` is the signal that came, 0 as long as none has; `since` is when."""

    number = 0
    since = 0.0

    def __init__(self, before: dict[int, Any]) -> None:
        self.before = before

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def act(self, number: int) -> NoReturn:
        """Let the signal do what it would have done; where that is not the end, leave as it would."""
        self.restore()
        signal.raise_signal(number)
        raise SystemExit(128 + number)


@contextmanager
def noticed() -> Iterator[Interruption]:
    """Within the block a first SIGINT or SIGTERM is only noted; a second one acts at once, as it would have outside.

    One that comes again within a second is the same: a cluster sends it to all processes of a job, torchrun among them,
    which hands it on.
    A signal that is ignored outside (as `nohup` and a shell's `&` ask) stays ignored. Outside the main thread signals
    can't be noted, and act as ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Interruption({})
        return
    telling = threading.Timer(_TELL_AFTER, _tell)
    telling.daemon = True
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    interruption = Interruption({n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN})

    def note(number: int, frame: FrameType | None) -> None:
        if not interruption.number:
            interruption.number, interruption.since = number, time.monotonic()
            telling.start()
        elif time.monotonic() - interruption.since > _SAME:
            interruption.act(number)

    for number in interruption.before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        telling.cancel()
        interruption.restore()


def _tell() -> None:
    if "LOCAL_WORLD_SIZE" not in os.environ:  # of several processes, who started them says it
        what = "the step under way is finished, and the state saved; the same signal again ends at once"
        print(what, file=sys.stderr, flush=True)
