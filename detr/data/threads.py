"""Many files looked at, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from detr.data import Progress

Item = TypeVar("Item")
Found = TypeVar("Found")


def on_all_cores(
    look: Callable[[Item], Found], items: Sequence[Item], progress: Progress | None = None, description: str = ""
) -> list[Found]:
    """What `look` finds in item after item. Ctrl-C, or an error, does not wait for those that haven't begun."""
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        found = threads.map(look, items)
        return list(progress(found, total=len(items), description=description) if progress else found)
    finally:
        threads.shutdown(cancel_futures=True)
