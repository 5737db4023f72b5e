"""One thread that asks the network, with the pictures of several requests at once."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch

from detr.engine.detecting import Prepared, prepare
from detr.engine.detector import Detector
from detr.engine.results import Results
from detr.runtime.settings import Settings
from detr.video import Frame

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class _Picture:
    prepared: Prepared
    settings: Settings
    future: Future[Results]


@dataclass(frozen=True, eq=False)
class _Alone:
    call: Callable[[], Any]
    future: Future[Any]


class Batcher:
    """Pictures that wait are answered together, up to `most` with the same settings; one waits `wait` seconds for more.

    A future has the result, or what went wrong with just that picture. One that is cancelled is left out.
    `tell` is called with the size of each batch and its seconds.
    """

    def __init__(
        self, detector: Detector, *, most: int, wait: float, tell: Callable[[int, float], None] | None = None
    ) -> None:
        self.detector, self.most, self.wait = detector, most, wait
        self._tell = tell or (lambda size, seconds: None)
        self._jobs: SimpleQueue[_Picture | _Alone | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="detr-serve", daemon=True)
        self._thread.start()

    def look(self, prepared: Prepared, settings: Settings) -> Future[Results]:
        """What the network finds in the picture."""
        future: Future[Results] = Future()
        self._jobs.put(_Picture(prepared, settings, future))
        return future

    def alone(self, call: Callable[[], Answer]) -> Future[Answer]:
        """What `call` answers, while nothing else asks the network."""
        future: Future[Answer] = Future()
        self._jobs.put(_Alone(call, future))
        return future

    def close(self) -> None:
        """After what waits has been answered."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        job = self._jobs.get()
        while job is not None:
            following: _Picture | _Alone | _Nothing | None = _NOTHING
            if isinstance(job, _Alone):
                if job.future.set_running_or_notify_cancel():
                    _answer(job.future, job.call)
            else:
                group, following = self._gathered(job)
                self._look(group)
            job = self._jobs.get() if isinstance(following, _Nothing) else following

    def _gathered(self, first: _Picture) -> tuple[list[_Picture], _Picture | _Alone | _Nothing | None]:
        """The pictures that go together, and what came after them and does not."""
        group, until = [first], time.monotonic() + self.wait
        while len(group) < self.most:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if not isinstance(job, _Picture) or job.settings != first.settings:
                return group, job
            group.append(job)
        return group, _NOTHING

    def _look(self, group: list[_Picture]) -> None:
        group = [each for each in group if each.future.set_running_or_notify_cancel()]
        if not group:
            return
        began = time.monotonic()
        if not self._together(group):  # one picture's trouble is not the others', and less at once may fit
            torch.cuda.empty_cache()
            for each in group:
                _answer(each.future, functools.partial(self._one, each))
        self._tell(len(group), time.monotonic() - began)

    def _together(self, group: list[_Picture]) -> bool:
        """Whether all are answered. What went wrong with several is forgotten: it would keep what the pass held."""
        try:
            results = self.detector.detect([each.prepared for each in group], group[0].settings)
        except Exception as problem:
            if len(group) > 1:
                return False
            group[0].future.set_exception(problem)
        else:
            for each, result in zip(group, results, strict=True):
                each.future.set_result(result)
        return True

    def _one(self, picture: _Picture) -> Results:
        return self.detector.detect([picture.prepared], picture.settings)[0]


def prepared_alone(frame: Frame, settings: Settings) -> Prepared:
    """A frame for the network alone: of the picture itself only the size is kept, as many may wait."""
    size_only = np.broadcast_to(np.zeros((), np.uint8), frame.image.shape)
    prepared = prepare(frame, settings)
    return Prepared(replace(frame, image=size_only), prepared.tensor, prepared.milliseconds)


class _Nothing:
    """Nothing has been taken from the queue yet; None is its end."""


_NOTHING = _Nothing()


def _answer(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        future.set_result(call())
    except Exception as problem:
        future.set_exception(problem)
