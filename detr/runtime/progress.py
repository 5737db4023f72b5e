"""A progress bar with time left on stderr, where that is a terminal; nothing where it is a file or a pipe."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_SILENT = 5.0  # seconds


def line_width() -> int | None:
    """Characters of a line of the terminal that is printed to; None for a file or a pipe, where lines are not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    description: str = "",
    unit: str = "it",
    quiet: bool = False,
) -> tqdm[Any]:
    """A bar over `iterable`, or one to move by hand with `.update(n)`. Without a `total` it counts, without percent.

    Use `bar.set_postfix_str` to say more and `bar.write` to print a line above it.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    return tqdm(
        iterable,
        total=total,
        desc=description or None,
        unit=unit,
        disable=quiet or not sys.stderr.isatty(),
        file=sys.stderr,
        dynamic_ncols=True,
        leave=False,
    )


@contextmanager
def told_if_long(what: str, *, quiet: bool = False) -> Iterator[None]:
    """`reading my-data ...` on stderr, a terminal or not, where the block takes longer than some seconds."""
    timer = threading.Timer(_SILENT, lambda: tqdm.write(f"{what} ...", file=sys.stderr))
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
