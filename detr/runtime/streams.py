"""Several batches in a network at once, each on its share of the processor's threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from detr.runtime.runner import Runner, TorchRunner

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_MOST = 4  # each takes the memory of a pass of its own


def streams_of(runner: Runner) -> int:
    """How many batches this runner is best asked at once, where it counts how many are answered and not how soon.

    Threads that share a pass wait for each other after each layer, and for whatever else a core has to do; those that
    have one each don't. Other devices, and other runners, use all there is for one batch.
    """
    if not isinstance(runner, TorchRunner) or runner.device.type != "cpu" or runner.compile:
        return 1
    threads = torch.get_num_threads()
    return next(count for count in range(_MOST, 0, -1) if threads % count == 0)


def in_streams(
    ask: Callable[[Question], Answer], questions: Iterable[Question], *, streams: int
) -> Generator[Answer, None, None]:
    """The answers, in the order of their questions, `streams` of which are asked at once.

    Until the generator ends, PyTorch has the share of a stream in threads, wherever it is used anew. What `ask` raises
    is raised here, in its place.
    """
    if streams == 1:
        yield from map(ask, questions)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(streams, "detr-stream", initializer=_have, initargs=(threads // streams,))
    asked: deque[Future[Answer]] = deque()
    try:
        for question in questions:
            asked.append(pool.submit(ask, question))
            if len(asked) > streams:  # one is waiting for whichever stream is free
                yield asked.popleft().result()
        while asked:
            yield asked.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        _have(threads)


def _have(threads: int) -> None:
    """PyTorch's threads for this thread of Python; it takes its number once, when it is first asked for."""
    torch.set_num_threads(threads)
    torch.get_num_threads()
