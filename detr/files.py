"""Files of ours: written aside and renamed, found where they were installed, gathered in `runs/<verb>/<name>`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detr.errors import InputError, UsageError


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends well, and goes when it does not.

    A reader never sees half a file, and a failed write leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".part{path.suffix}", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def shipped(folder: str) -> Path:
    """The folder `configs` or `weights` that came with the toolkit, in a wheel or in a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "share" / folder
    return installed if installed.is_dir() else here.parent / folder


def new_run(verb: str, name: str | None = None, *, project: str | os.PathLike[str] = "runs", overwrite: bool = False) -> Path:
    """Make and return `project/verb/name`. Without a name: `verb`, then `verb-2`, `verb-3`, ...

    UsageError if a named folder holds something already and `overwrite` is off; InputError if it can't be written.
    """
    parent = Path(project) / verb
    if name is None:
        numbers = (parent / (verb if n == 1 else f"{verb}-{n}") for n in range(1, 1_000_000))
        folder = next(folder for folder in numbers if not folder.exists())
    else:
        folder = parent / name
        if not overwrite and folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} already holds a run; choose another --name, or allow it with --overwrite")
    require_writable(folder)
    return folder


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Make the folder and try it, before any long work; InputError says what is in the way."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            probe.write(b"detr")
            probe.flush()
    except OSError as problem:
        raise InputError(f"cannot write to {folder}: {problem.strerror or problem}") from problem
