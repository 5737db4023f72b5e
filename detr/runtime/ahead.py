"""Work in a thread of its own, a few items ahead of whoever takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")

_END = object()
_here = threading.local()


class _Raised:
    def __init__(self, problem: BaseException) -> None:
        self.problem = problem


def ahead(items: Iterable[Item], *, depth: int) -> Generator[Item, None, None]:
    """`items` in their order, made by a thread at most `depth` items ahead.

    What the thread raises is raised here, in its place. When the generator is closed, or given up by an exception, the
    thread stops after the item it is at, and closes `items` if that is a generator.
    """
    waiting: queue.Queue[Any] = queue.Queue(depth)
    given_up = threading.Event()

    def hand_over(item: Any) -> None:
        while not given_up.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        last: Any = _END
        _here.given_up = given_up
        try:
            for item in items:
                hand_over(item)
                if given_up.is_set():
                    break
        except BaseException as problem:  # raised again where the items are taken
            last = _Raised(problem)
        if isinstance(items, Generator):
            items.close()
        hand_over(last)

    worker = threading.Thread(target=work, daemon=True, name="detr-ahead")
    worker.start()
    try:
        while (item := _next(waiting)) is not _END:
            if isinstance(item, _Raised):
                raise item.problem
            yield item
    finally:
        given_up.set()
        worker.join(timeout=5)  # it may be stuck in a camera or a pipe that sends nothing; then it dies with us


def is_wanted() -> bool:
    """Whether somebody still takes what this thread makes. What may last for ever, such as reading a pipe, asks."""
    given_up: threading.Event | None = getattr(_here, "given_up", None)
    return given_up is None or not given_up.is_set()


def _next(waiting: queue.Queue[Any]) -> Any:
    """Short waits: a single long one would keep Ctrl-C waiting on Windows, and one thread after the other."""
    while is_wanted():
        try:
            return waiting.get(timeout=0.2)
        except queue.Empty:
            continue
    return _END
