"""Several processes of one command on this machine: handed each signal, and gone when it ends, whatever they are at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

PATIENCE = 120.0  # seconds that processes have to finish a step and save, after a signal
_HURRY = 5.0  # seconds that are left to them after a second one
_ALONE = 30.0  # seconds to end for those whose neighbour failed, after they were told to
_OWN_WORDS = 2.0  # seconds before that, in which they notice it themselves, and say so
_TELL_AFTER = 3.0  # seconds after a signal, to say what is waited for
_SAME = 1.0  # seconds within which a signal that comes again is the same one
_LOOK_EVERY = 0.05
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))


def attended(words: Sequence[str], surroundings: Sequence[Mapping[str, str]], *, patience: float = PATIENCE) -> int:
    """`python WORDS` in a process for each of `surroundings`, until all have ended -> the exit code.

    What holds their stdin is this process: where it is killed, they can notice. A SIGINT or SIGTERM is handed on, and
    wakes those that stand still (SIGSTOP); after `patience` seconds, or soon after a second signal, what still runs is
    killed. The code is then 128 and the signal's number, as that of one process. Where one fails, the others end, too.
    """
    with _noted() as came:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for each in surroundings:
                processes.append(_start(words, each))
            with _stopped_together(processes):
                return _Attendance(processes, came, patience).code()
        finally:
            _end(processes)


def _start(words: Sequence[str], surroundings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C comes to it once, and what it starts can be ended with it."""
    return subprocess.Popen(
        [sys.executable, *words], env={**os.environ, **surroundings}, stdin=subprocess.PIPE, start_new_session=True
    )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill those that still run; one that a disk holds can't be ended, nor waited for."""
    _signal([process for process in processes if process.poll() is None], signal.SIGKILL)
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_HURRY)


@contextmanager
def _noted() -> Iterator[list[tuple[int, float]]]:
    """Signals that come within the block, each with when it came; what is ignored stays so."""
    came: list[tuple[int, float]] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not came or time.monotonic() - came[-1][1] > _SAME:
            came.append((number, time.monotonic()))

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _stopped_together(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Within the block Ctrl-Z stops all, who have no terminal to hear it from, and `fg` lets all go on."""
    if not hasattr(signal, "SIGTSTP") or signal.getsignal(signal.SIGTSTP) == signal.SIG_IGN:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        _signal(processes, signal.SIGSTOP, wake=False)
        os.kill(os.getpid(), signal.SIGSTOP)
        _signal(processes, signal.SIGCONT)  # by now this process goes on

    before = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


class _Attendance:
    """Over processes that run; `came` grows by the signals that come meanwhile."""

    def __init__(
        self, processes: Sequence[subprocess.Popen[bytes]], came: list[tuple[int, float]], patience: float
    ) -> None:
        self._processes, self._came, self._patience = processes, came, patience
        self._handed_on = 0  # signals
        self._failed: list[subprocess.Popen[bytes]] = []  # of themselves, the first one first
        self._tell_at = self._end_at = self._kill_at = float("inf")

    def code(self) -> int:
        while (running := self._running()) and self._go_on(running):
            time.sleep(_LOOK_EVERY)
        codes = [-signal.SIGKILL if code is None else code for code in (each.returncode for each in self._processes)]
        if self._came and any(codes):
            return 128 + self._came[0][0]
        return _exit_code([each.returncode for each in self._failed] or [code for code in codes if code] or [0])

    def _running(self) -> list[subprocess.Popen[bytes]]:
        running = [process for process in self._processes if process.poll() is None]
        if not self._came and self._kill_at == float("inf"):  # nobody was told to end
            self._failed += [each for each in self._processes if each.returncode and each not in self._failed]
        return running

    def _go_on(self, running: Sequence[subprocess.Popen[bytes]]) -> bool:
        """One look at those that run; False when what remains is to be killed."""
        now = time.monotonic()
        if self._handed_on < len(self._came):
            self._hand_on(running, now)
        elif self._failed and self._end_at == self._kill_at == float("inf"):
            self._end_at = now + _OWN_WORDS
        if now > self._end_at:
            self._end_at, self._kill_at = float("inf"), now + _ALONE
            _signal(running, signal.SIGTERM)
        if now > self._tell_at:
            self._tell(len(running))
        if now > self._kill_at:
            self._tell_of(running)
        return now <= self._kill_at

    def _hand_on(self, running: Sequence[subprocess.Popen[bytes]], now: float) -> None:
        self._handed_on = len(self._came)
        is_first = self._handed_on == 1
        self._end_at = float("inf")
        self._kill_at = min(self._kill_at, now + (self._patience if is_first else _HURRY))
        self._tell_at = now + _TELL_AFTER if is_first else float("inf")
        _signal(running, self._came[-1][0])

    def _tell(self, count: int) -> None:
        self._tell_at = float("inf")
        left = f"{self._kill_at - time.monotonic() + _TELL_AFTER:.0f} s"
        which = f"{count} of {len(self._processes)} processes"
        _say(f"{which} finish what they are at and save, for {left} at most; the same signal again ends them at once")

    def _tell_of(self, killed: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in killed:
            which = f"process {self._processes.index(process) + 1} of {len(self._processes)} (pid {process.pid})"
            _say(f"warning: {which} did not end and is killed; what it saved before stays")


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: int, *, wake: bool = True) -> None:
    """With what each of them started; one that stands still is woken, to hear of it."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            if wake:
                os.killpg(process.pid, signal.SIGCONT)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _exit_code(codes: Sequence[int]) -> int:
    """Of those that failed: wrong usage, which all saw alike, before what came of it in the others."""
    first = 2 if 2 in codes else codes[0]
    return 128 - first if first < 0 else first
