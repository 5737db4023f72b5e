"""The saved state of a run in two generations: the older one stays until the newer one is on the disk and was read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from detr.errors import InputError, NotWritten, UsageError
from detr.training.saved.checkpoint import RESUME, Resumed, read_state

PREVIOUS, NEXT, DAMAGED = "resume.previous.safetensors", "resume.next.safetensors", "resume.damaged.safetensors"


def put_down(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make the folder's next state; the one that was the newest becomes the one before.

    At any moment a whole state lies in the folder, whether the process is killed, the disk fills up or the power fails.
    InputError if it can't be written, or reads back as something else.
    """
    coming = folder / NEXT
    with with_the_way_on(folder, of=InputError):
        write(coming)
        _flush(coming)
        read_state(coming)
    if (folder / RESUME).is_file():
        os.replace(folder / RESUME, folder / PREVIOUS)
    os.replace(coming, folder / RESUME)
    _flush(folder)


@contextmanager
def with_the_way_on(folder: Path, of: type[InputError] = NotWritten) -> Iterator[None]:
    """Such an error of this block says how to go on, where a state lies in the folder."""
    try:
        yield
    except of as problem:
        if not (folder / RESUME).is_file():
            raise
        raise InputError(
            f"{problem}; the state saved before is whole: when that is mended, detr train --resume {folder}"
        ) from None


def newest(folder: Path, say: Callable[[str], None]) -> Resumed:
    """The newest whole state in a run folder; a damaged one is set aside by name and the one before is taken.

    UsageError if the folder has none; InputError if each is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"--resume {folder}: no such run folder")
    there = [folder / name for name in (RESUME, PREVIOUS) if (folder / name).is_file()]
    if not there:
        raise UsageError(f"--resume {folder}: it has no {RESUME}, so there is nothing to go on from")
    problems = []
    for path in there:
        try:
            state = read_state(path)
        except InputError as problem:
            problems.append(str(problem))
            continue
        for text in problems:
            say(f"warning: {text}; going on from the state before, {path.name}")
        return state
    raise InputError(f"--resume {folder}: {'; '.join(problems)}; no whole state is left")


def forget(folder: Path) -> None:
    """The states of an earlier run in the folder: they must never be taken for the new one's."""
    for name in (RESUME, PREVIOUS, NEXT, DAMAGED):
        (folder / name).unlink(missing_ok=True)


def set_damaged_aside(folder: Path, used: Resumed) -> None:
    """After going on from the state before: the damaged file must not push the whole one out."""
    if used.path.name == PREVIOUS and (folder / RESUME).is_file():
        os.replace(folder / RESUME, folder / DAMAGED)


def _flush(path: Path) -> None:
    """To the disk itself: a rename is no use if the power fails before the bytes are there."""
    if path.is_dir() and os.name == "nt":
        return  # folders can't be opened there
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
