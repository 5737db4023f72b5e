"""A loader that delivers nothing: which of its processes is at which file, and why one of them is gone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, ClassVar

import torch

from detr.data.coco import CocoDataset
from detr.errors import InputError, counted, visible
from detr.patience import Patience

SHARED = "/dev/shm"
_PID, _IMAGE, _SINCE = range(3)  # columns of what each process tells
_NO_IMAGE = -1
_NO_MEMORY = "as the system does where memory runs out; fewer --workers or a smaller batch need less"
_ROOM = "give it more (--shm-size=8g of Docker), or use fewer --workers; 0 needs none"


class _GivenUp(BaseException):
    """Raised in the midst of reading, where no one is to take it for a fault of the file."""


class Whereabouts:
    """Which image each of a loader's processes is at, told by them in shared memory; without any, this process is."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._rows = torch.full((max(1, workers), 3), _NO_IMAGE, dtype=torch.int64).share_memory_()

    def begin(self, worker: int) -> None:
        """Called in the process itself."""
        self._rows[worker, _PID] = os.getpid()

    def at(self, worker: int, image: int) -> None:
        self._rows[worker, _IMAGE], self._rows[worker, _SINCE] = image, time.monotonic_ns()

    def done(self, worker: int) -> None:
        self._rows[worker, _IMAGE] = _NO_IMAGE

    def busy(self) -> list[tuple[int, int, int]]:
        """(number, id, image) of the processes that are at an image, the one that has been there longest first."""
        rows = sorted((since, n, pid, image) for n, (pid, image, since) in enumerate(self._rows.tolist()))
        return [(number, pid, image) for _, number, pid, image in rows if image != _NO_IMAGE]

    def who(self, pid: int | None) -> tuple[int, int] | None:
        """(number, image or -1) of the process with that id."""
        rows = enumerate(self._rows.tolist())
        return next(((n, image) for n, (known, image, _) in rows if known == pid), None)


class Standstill:
    """Watches over one pass of a loader. InputError, in place of what the loader raises, for one that is given up."""

    _raising: ClassVar[Any] = None  # PyTorch's handler of a process that ended; it is made once only

    def __init__(self, dataset: CocoDataset, whereabouts: Whereabouts, longest: float, setting: str) -> None:
        self._dataset, self._whereabouts, self._longest = dataset, whereabouts, longest
        self._setting = f" ({setting})" if setting else ""
        self._given_up = ""
        self._thread = threading.current_thread()
        self._processes: Sequence[BaseProcess] = ()
        self._patience = Patience(longest=longest, tell=self._tell, give_up=self._give_up)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of the loader's processes.

        PyTorch then lets a signal raise an error wherever the program is when one of them ends. Ours may raise it where
        a batch is waited for only: between two steps nothing is half done.
        """
        before, handler = set(multiprocessing.active_children()), _of_children()
        yield
        self._processes = [each for each in multiprocessing.active_children() if each not in before]
        if _of_children() is not handler:
            Standstill._raising = _of_children()
            signal.signal(signal.SIGCHLD, handler)

    @contextmanager
    def watched(self) -> Iterator[Patience]:
        """Around the pass. Where it fails its processes are ended: one that reads, or a traceback that still knows the
        loader, would keep this program from leaving."""
        try:
            with self._patience as patience:
                yield patience
        except GeneratorExit:
            raise
        except BaseException:
            for process in self._processes:
                process.kill()
            raise

    @contextmanager
    def in_words(self) -> Iterator[None]:
        """Around each wait for a batch."""
        if (said := self._why_gone()) is not None:
            raise InputError(said)
        handlers = self._handlers()
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        except _GivenUp:
            raise InputError(self._given_up) from None
        except RuntimeError as problem:
            if (said := self._given_up or self._why_gone() or _said_by_torch(problem)) is None:
                raise
            raise InputError(said) from problem
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handlers(self) -> dict[signal.Signals, Any]:
        """Signals that end a wait, and what they do meanwhile; none where they can't be handled."""
        if not self._can_be_interrupted:
            return {}
        if not self._whereabouts.workers:
            return {signal.SIGALRM: self._interrupted}
        return {} if Standstill._raising is None else {signal.SIGCHLD: Standstill._raising}

    def _tell(self, seconds: float) -> None:
        until = f"; given up after {_in_words(self._longest)}{self._setting}" if self._longest else ""
        print(f"warning: no batch for {_in_words(seconds)}: {self._where()}{until}", file=sys.stderr, flush=True)

    def _give_up(self) -> None:
        """In the thread that watches: the loader notices that its processes are gone."""
        self._given_up = f"no batch for {_in_words(self._longest)}{self._setting}: {self._where()}"
        busy = {pid for _, pid, _ in self._whereabouts.busy()}
        if not self._whereabouts.workers:
            if self._can_be_interrupted:
                signal.pthread_kill(self._thread.ident or 0, signal.SIGALRM)
            return
        for process in self._processes:
            if process.pid in busy or not busy:
                process.kill()

    @property
    def _can_be_interrupted(self) -> bool:
        return hasattr(signal, "SIGALRM") and self._thread is threading.main_thread()

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        raise _GivenUp

    def _where(self) -> str:
        """`loader process 2 of 4 (pid 812) is at /data/a.jpg, and 1 more waits like it`"""
        busy, workers = self._whereabouts.busy(), self._whereabouts.workers
        if not busy:
            return f"none of the {counted(workers, 'loader process', 'loader processes')} is at an image"
        number, pid, image = busy[0]
        who = f"loader process {number + 1} of {workers} (pid {pid})" if workers else "this process"
        others = f", and {len(busy) - 1} more at others" if len(busy) > 1 else ""
        return f"{who} is at {self._file(image)}{others}"

    def _file(self, image: int) -> str:
        return visible(str(self._dataset.file(image)))

    def _why_gone(self) -> str | None:
        """Of a loader process that ended before its time."""
        gone = next((each for each in self._processes if not each.is_alive() and each.exitcode), None)
        if gone is None:
            return None
        number, image = self._whereabouts.who(gone.pid) or (0, _NO_IMAGE)
        place = f" at {self._file(image)}" if image != _NO_IMAGE else ""
        who = f"loader process {number + 1} of {self._whereabouts.workers} (pid {gone.pid})"
        assert gone.exitcode is not None
        if gone.exitcode > 0:
            return f"{who} ended by itself{place} with code {gone.exitcode}; --workers 0 shows why"
        name = signal.Signals(-gone.exitcode).name
        if name == "SIGBUS" and os.path.isdir(SHARED):
            return f"{who} was ended by SIGBUS{place}: {_no_room()}"
        advice = _NO_MEMORY if name == "SIGKILL" else "--workers 0 shows why"
        return f"{who} was ended by {name}{place}, {advice}"


def no_room_for(problem: RuntimeError) -> str | None:
    """Why a batch can't be handed over by a loader process, if that is why PyTorch refused to."""
    text = str(problem)
    if "Too many open files" in text:
        return "too many open files to hand over batches; allow more (ulimit -n 4096), or use fewer --workers"
    if "shared memory" not in text and "torch_" not in text:
        return None
    return _no_room()


def _of_children() -> Any:
    return signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None


def _said_by_torch(problem: RuntimeError) -> str | None:
    return no_room_for(problem) if "Too many open files" in str(problem) else None


def _no_room() -> str:
    room = shutil.disk_usage(SHARED).total / 1e6 if os.path.isdir(SHARED) else 0
    return f"the shared memory for batches is full ({SHARED}, {room:,.0f} MB in all); {_ROOM}"


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.3g} s"
