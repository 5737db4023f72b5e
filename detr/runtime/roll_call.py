"""Processes that wait for each other: each tells where they met that it lives; who waits for long says for whom."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from torch.distributed import Store

from detr.patience import FIRST, Patience

_BEAT = 5.0  # seconds from one sign of life to the next
_SILENT = 3  # beats without a sign, after which a process is taken to stand still


@dataclass(frozen=True)
class Sign:
    """Of life, given by a process."""

    time: float  # by its own clock
    pid: int
    host: str
    waits: str  # in what it waits for the others; empty where it is at work by itself
    seconds: float  # for how long it has been at that


class RollCall:
    """Watches over what is waited for in blocks of `waiting`.

    It only tells: a process that stands still ends by itself where it can (`train.longest_wait`), and then all do;
    otherwise the library that connects them gives up (gloo after 30 minutes, NCCL after 10).
    """

    def __init__(self, rank: int, size: int, store: Store, *, first: float = FIRST, beat: float = _BEAT) -> None:
        self._rank, self._size, self._store, self._first, self._beat = rank, size, store, first, beat
        self._waits, self._since = "", time.monotonic()
        self._heard: dict[int, tuple[Sign, float]] = {}  # the last sign of each process, and when it came here
        self._looked = -1.0  # when the others' signs were last to be had
        self._closed = threading.Event()
        self._patience = Patience(longest=0, first=first, tell=self._tell, give_up=lambda: None)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="detr-roll-call")

    @contextmanager
    def held(self) -> Iterator[RollCall]:
        """The block in which it watches."""
        self._thread.start()
        try:
            with self._patience:
                yield self
        finally:
            self._closed.set()
            self._thread.join(self._beat)  # it must not be found within the store's own code as the program ends

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Others are waited for in this block; within another such block it is that one that is told of."""
        if self._waits:
            yield
            return
        self._waits, self._since = what, time.monotonic()
        try:
            with self._patience.waiting():
                yield
        finally:
            self._waits, self._since = "", time.monotonic()

    def _watch(self) -> None:
        with suppress(RuntimeError):  # the place where they met is gone, as all this is about to be
            while True:
                self._give_sign()
                if self._waits and time.monotonic() - self._since > self._first / 2:
                    self._look()
                if self._closed.wait(self._beat):
                    return

    def _give_sign(self) -> None:
        seconds = time.monotonic() - self._since
        sign = Sign(time.time(), os.getpid(), socket.gethostname(), self._waits, seconds)
        self._store.set(_key(self._rank), json.dumps(asdict(sign)))

    def _look(self) -> None:
        for rank in range(self._size):
            if rank == self._rank or not self._store.check([_key(rank)]):
                continue
            sign = Sign(**json.loads(self._store.get(_key(rank))))
            if rank not in self._heard or self._heard[rank][0] != sign:
                self._heard[rank] = sign, time.monotonic()
        self._looked = time.monotonic()

    def _tell(self, seconds: float) -> None:
        waits, others = self._waits, [rank for rank in range(self._size) if rank != self._rank]
        living = {rank: self._heard[rank][0] for rank in others if self._lives(rank)}
        if any(rank < self._rank and sign.waits for rank, sign in living.items()):
            return  # that one says it
        if time.monotonic() - self._looked > _SILENT * self._beat:
            what = (
                "the process that started them, or the first of them, does not answer: it or its machine stands still"
            )
        elif silent := [rank for rank in others if rank not in living]:
            what = "; ".join(self._silent(rank) for rank in silent)
        elif busy := {rank: sign for rank, sign in living.items() if not sign.waits}:
            what = "; ".join(
                f"{_who(rank, sign)} has been busy by itself for {sign.seconds:.0f} s (with data or files?)"
                for rank, sign in busy.items()
            )
        else:
            what = "all of them live and are at the same, which is slow, or the network between them is"
        print(
            f"warning: process {self._rank + 1} of {self._size} has waited for others for {seconds:.0f} s ({waits}): "
            f"{what}",
            file=sys.stderr,
            flush=True,
        )

    def _lives(self, rank: int) -> bool:
        return rank in self._heard and time.monotonic() - self._heard[rank][1] < _SILENT * self._beat

    def _silent(self, rank: int) -> str:
        if rank not in self._heard:
            return f"process {rank + 1} has not been heard of at all"
        sign = self._heard[rank][0]
        since = time.strftime("%H:%M:%S", time.localtime(sign.time))
        return (
            f"{_who(rank, sign)} has not been heard of since {since}, so it or its machine stands still; "
            f"kill -CONT {sign.pid} there wakes it, Ctrl-C ends all"
        )


def _key(rank: int) -> str:
    return f"detr-sign-of-{rank}"


def _who(rank: int, sign: Sign) -> str:
    return f"process {rank + 1} (pid {sign.pid} on {sign.host})"
