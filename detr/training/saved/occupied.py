"""One training at a time in the folder of a run, and the litter of one that was killed."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detr.errors import UsageError

LOCK = ".training"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_LITTER = (".*.part*", ".tmp??????")  # ours, and those of safetensors


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Within the block the run folder is this process's, and free of half files; UsageError if a training is at work.

    The lock dies with its process, even by SIGKILL, and its loader's processes don't have it. Where the system knows no
    such locks (Windows, some network disks), nothing is locked and nothing removed.
    """
    if os.name == "nt":
        yield
        return
    fcntl = importlib.import_module("fcntl")
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in _NO_LOCKS:
                yield
                return
            if problem.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            file.seek(0)
            raise UsageError(f"{folder}: a training is at work there (process {file.read().strip()})") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        remove_litter(folder)
        try:
            yield
        finally:
            with suppress(OSError):  # what a disk that fails can't remove must not stand before what it is told of
                (folder / LOCK).unlink(missing_ok=True)


def remove_litter(folder: Path) -> list[Path]:
    """Half files that a killed process left behind; only for who holds the folder."""
    found = [path for pattern in _LITTER for path in sorted(folder.glob(pattern)) if path.is_file()]
    for path in found:
        path.unlink(missing_ok=True)
    return found
