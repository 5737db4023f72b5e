"""Files: text and JSON of others read, ours written aside and renamed, found where installed, gathered in `runs/`."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from detr.errors import InputError, NotWritten, UsageError

_NO_NAME = re.compile(r'[<>:"|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[1-9])(\..*)?", re.IGNORECASE)  # devices of Windows
_OF_THE_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "larger than allowed",
    errno.EIO: "the disk failed",
    errno.EROFS: "the disk is read-only by now",
    errno.ESTALE: "the network disk has lost its folder",
}


def read_text(path: str | os.PathLike[str]) -> str:
    """A file of the user's, in UTF-8 with or without a byte order mark.

    UsageError where there is none, InputError where it can't be read or is no such text.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file") from None
    except OSError as problem:
        raise InputError(f"cannot read {path}: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: not text in UTF-8 (byte {problem.start})") from None


@contextmanager
def json_mistakes_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """What `json` raises in the block over the text of `path`, as InputError with line and column."""
    try:
        yield
    except json.JSONDecodeError as problem:
        raise InputError(f"{path}:{problem.lineno}:{problem.colno}: not valid JSON: {problem.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: JSON nested too deeply") from None
    except ValueError as problem:
        raise InputError(f"{path}: not valid JSON: {problem}") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file of the user's holds; errors as in `read_text` and `json_mistakes_of`."""
    text = read_text(path)
    with json_mistakes_of(path):
        return json.loads(text)


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends well, and goes when it does not.

    A reader never sees half a file, and a failed write leaves the old file as it was. Devices and pipes, which can't be
    replaced, are written to directly. InputError says why `path` can't be written.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise NotWritten(f"cannot write {path}: it is a folder")
    replaceable = os.path.isfile(path) or not os.path.exists(path)
    try:
        aside = _new_beside(path) if replaceable else path
    except OSError as problem:
        raise NotWritten(f"cannot write {path}: {problem.strerror}") from problem
    rights = aside.stat().st_mode
    try:
        yield aside
        if replaceable:
            aside.chmod(rights)  # safetensors puts a file of its own there, which only its owner may read
            os.replace(aside, path)
    except OSError as problem:
        if (said := _why_not_written(problem, aside)) is None:
            raise
        raise NotWritten(f"cannot write {path}: {said}") from problem
    finally:
        if replaceable:
            with suppress(OSError):  # a disk that fails, or that is read-only by now, keeps it
                aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder beside `path` to fill; it becomes `path` when the block ends well, and goes when it does not.

    UsageError if `path` is there and holds something; InputError says why it can't be written.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()):
        raise UsageError(f"{path} already holds something; choose another folder")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; expected a folder to write to")
    aside = path.absolute().with_name(f".{path.absolute().name[:80]}-{secrets.token_hex(4)}.part")
    try:
        aside.mkdir(parents=True)
        yield aside
        if path.is_dir():
            path.rmdir()
        aside.rename(path)
    except OSError as problem:
        raise NotWritten(f"cannot write {path}: {disk_said(problem)}") from problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """In UTF-8. Bytes of file names that are none become `\\udcff`, which JSON reads as the same name."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Pictures are encoded first and come here: Pillow writing to a full disk itself leaves half a file unnoticed."""
    with written_aside(path) as aside:
        aside.write_bytes(data)


def home() -> Path:
    """What is kept between runs: `$DETR_HOME`, else `~/.cache/detr`.

    A user whom the system doesn't know by name, as in containers that run under any number, is at home at the root.
    """
    if chosen := os.environ.get("DETR_HOME"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "detr"
    except RuntimeError:
        return Path("/.cache/detr")


def kept_in(folder: str) -> Path:
    """That folder in `home()`, made and tried; InputError, which names DETR_HOME, where it can't be written."""
    path = home() / folder
    try:
        require_writable(path)
    except InputError as problem:
        raise NotWritten(f"{problem}; set DETR_HOME to a folder that can be written") from None
    return path


def shipped(folder: str) -> Path:
    """The folder `configs` or `weights` that came with the toolkit, in a wheel or in a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "share" / folder
    return installed if installed.is_dir() else here.parent / folder


def new_run(
    verb: str, name: str | None = None, *, project: str | os.PathLike[str] = "runs", overwrite: bool = False
) -> Path:
    """Make and return `project/verb/name`. Without a name: `verb`, then `verb-2`, `verb-3`, ...

    Two programs started together get different folders. UsageError if a named folder holds something already and
    `overwrite` is off, or for what is no name; InputError if it can't be written.
    """
    parent = Path(project) / verb
    if name is None:
        require_writable(parent)
        return _first_free(parent, verb)
    folder = parent / run_name(name)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} already holds a run; choose another --name, or allow it with --overwrite")
    require_writable(folder)
    return folder


def run_name(name: str) -> str:
    """The name; UsageError for what is not the name of one folder, on Windows too, where a project may be taken."""
    if not name.strip():
        raise UsageError("the --name of a run is empty")
    plain = _NO_NAME.sub("_", re.split(r"[/\\]", name.rstrip("/\\"))[-1]).lstrip().rstrip(" .")
    if _RESERVED.fullmatch(plain):
        plain = f"my-{plain}"
    if plain != name:
        holds = "; the folder that holds the runs is --project" if re.search(r"[/\\]", name) else ""
        raise UsageError(f"--name {name}: expected the name of a folder, such as {plain or 'mine'}{holds}")
    return name


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """When the block fails before anything came into `folder`, the folder goes."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Make the folder and try it, before any long work; InputError says what is in the way."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            probe.write(b"detr")
            probe.flush()
    except OSError as problem:
        raise NotWritten(f"cannot write to {folder}: {problem.strerror or problem}") from problem


def disk_said(problem: OSError) -> str:
    """In our words where a disk is what is wrong, in the system's elsewhere."""
    return _OF_THE_DISK.get(problem.errno or 0, problem.strerror or str(problem))


def require_there(folder: Path) -> None:
    """InputError where the folder that results are written to is gone: files alone would bring back a part of it."""
    if not folder.is_dir():
        raise NotWritten(f"cannot write to {folder}: it was removed meanwhile")


def _why_not_written(problem: OSError, aside: Path) -> str | None:
    """None for what is wrong with something else that was in use meanwhile."""
    if not aside.exists() and problem.filename is not None and os.fspath(problem.filename) == os.fspath(aside):
        return "it, or its folder, was removed meanwhile"
    return _OF_THE_DISK.get(problem.errno or 0)


def _new_beside(path: Path) -> Path:
    """An empty hidden file in the folder of `path`, with the rights of any new file, and a name as long at most."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is not a folder") from None
    with suppress(FileNotFoundError):
        os.lstat(path)  # a name too long shows here, before any work
    aside = path.with_name(f".{path.stem[:80]}-{secrets.token_hex(4)}.part{path.suffix[:40]}")
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return aside


def _first_free(parent: Path, verb: str) -> Path:
    for number in count(1):
        folder = parent / (verb if number == 1 else f"{verb}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise AssertionError("there is always another number")
