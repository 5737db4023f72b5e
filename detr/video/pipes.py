"""Bytes that come when they come: from a pipe, which may be silent for ever."""

from __future__ import annotations

import io
import os
import select
import stat
import threading
from collections.abc import Callable
from typing import Any

from detr.errors import InputError

GoOn = Callable[[float], bool]
"""Is told again and again for how many seconds nothing has come, and says whether to wait any longer."""

_PAUSE = 0.2  # seconds from one look to the next


def is_pipe(place: str | int) -> bool:
    """Whether a path, or the number of an open file, is something that can keep its reader waiting."""
    if isinstance(place, str) and not os.path.exists(place):
        return False
    mode = os.stat(place).st_mode
    return os.name == "posix" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def standard_input(stream: Any, go_on: GoOn) -> Any:
    """What stands for `sys.stdin.buffer`: itself, where it is a file or can't be waited for."""
    try:
        number = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return stream
    return Pipe(number, go_on) if is_pipe(number) else stream


class Pipe:
    """The open end of a pipe; where `go_on` says that nobody waits any longer, it ends.

    PyAV, which reads it, drops what is raised here, such as Ctrl-C, and reads on: it ends then, too, and
    `raise_if_broken_off` raises it for who asked PyAV.
    """

    def __init__(self, number: int, go_on: GoOn) -> None:
        self._number, self._go_on = number, go_on
        self._broken_off: BaseException | None = None

    def read(self, size: int) -> bytes:
        if self._broken_off is not None:
            return b""
        try:
            return self._read(size)
        except BaseException as problem:
            self._broken_off = problem
            return b""

    def raise_if_broken_off(self) -> None:
        if self._broken_off is not None:
            raise self._broken_off

    def close(self) -> None:
        """Standard input stays open."""

    def _read(self, size: int) -> bytes:
        waited = 0.0
        while not select.select([self._number], [], [], _PAUSE)[0]:
            waited += _PAUSE
            if not self._go_on(waited):
                return b""
        return os.read(self._number, size)


class NamedPipe(Pipe):
    """A pipe in the file system. Opening it already waits for somebody who writes, which nothing can interrupt."""

    def __init__(self, path: str, go_on: GoOn) -> None:
        opened: list[int | OSError] = []
        opening = threading.Thread(target=lambda: opened.append(_opened(path)), daemon=True, name="detr-pipe")
        opening.start()
        waited = 0.0
        while not opened:
            opening.join(_PAUSE)
            waited += _PAUSE
            if not opened and not go_on(waited):
                raise InputError(f"{path}: nobody writes into this pipe")
        if isinstance(opened[0], OSError):
            raise InputError(f"{path}: {opened[0].strerror}")
        super().__init__(opened[0], go_on)

    def close(self) -> None:
        os.close(self._number)


def _opened(path: str) -> int | OSError:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as problem:
        return problem
