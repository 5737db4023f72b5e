"""Tar files as folders: each file is read from where it lies, in any order, without unpacking."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np

from detr.errors import InputError, UsageError

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)  # neither links nor files with holes


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    archive: Path
    path: str  # within it
    start: int  # bytes
    length: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.path}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def open(self, mode: str = "rb") -> BytesIO:
        """The file's content; OSError as of files, also where the archive has become shorter."""
        assert mode == "rb"
        with self.archive.open("rb") as stream:
            stream.seek(self.start)
            content = stream.read(self.length)
        if len(content) < self.length:
            raise OSError(0, "the archive ends within it")
        return BytesIO(content)


StoredFile: TypeAlias = Path | Member


def state_of(file: StoredFile) -> tuple[str, int, int]:
    """What differs when the file is another or was changed: name, bytes, time of change; OSError if it isn't there."""
    state = (file.archive if isinstance(file, Member) else file).stat()
    name = str(file) if isinstance(file, Member) else str(file.resolve())
    return name, state.st_size, state.st_mtime_ns


class Archive:
    """The files of a tar file, or of all tar files in a folder ("shards", as WebDataset writes them), by their names.

    A single folder around everything, as `tar cf images.tar images` makes it, may be left out of the names.
    InputError for a damaged file, and for a name that two shards have; UsageError for a compressed one.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.shards = _shards(place)
        self._row_of: dict[str, int] = {}
        rows: list[tuple[int, int, int]] = []
        for number, shard in enumerate(self.shards):
            for path, start, length in _files(shard):
                before = self._row_of.get(path)
                if before is not None and rows[before][0] != number:
                    raise InputError(f"{path} is in both {self.shards[rows[before][0]]} and {shard}")
                self._row_of[path] = len(rows)  # of files with one name in a tar file the last one counts
                rows.append((number, start, length))
        self._rows = np.array(rows, np.int64).reshape(-1, 3)  # shard, start, length
        tops = {path.split("/", 1)[0] for path in self._row_of}
        self._top = f"{tops.pop()}/" if len(tops) == 1 else ""

    def __len__(self) -> int:
        return len(self._row_of)

    def find(self, path: PurePosixPath) -> Member | None:
        """The file that is called so; None if there is none."""
        for name in (path.as_posix(), self._top + path.as_posix()):
            row = self._row_of.get(name)
            if row is not None:
                number, start, length = self._rows[row].tolist()
                return Member(self.shards[number], name, start, length)
        return None


@cache
def archive(place: Path) -> Archive:
    """The archive at `place`, its table of contents read once."""
    return Archive(place)


def is_archive(place: Path) -> bool:
    """Whether it is a tar file, or a folder with tar files and neither folders nor images."""
    if place.suffix == ".tar" or place.name.endswith(_COMPRESSED):
        return place.is_file()
    return place.is_dir() and _has_only_shards(place)


def _has_only_shards(folder: Path) -> bool:
    has_shard = False
    for entry in folder.iterdir():
        if entry.suffix == ".tar":
            has_shard = True
        elif entry.suffix not in (".json", ".txt", ".md", ".csv", ".idx", ".index") and not entry.name.startswith("."):
            return False
    return has_shard


def _shards(place: Path) -> list[Path]:
    if place.name.endswith(_COMPRESSED):
        raise UsageError(f"{place}: images can't be found in a compressed archive; expected a plain .tar, or a folder")
    return sorted(place.glob("*.tar")) if place.is_dir() else [place]


def _files(shard: Path) -> Iterator[tuple[str, int, int]]:
    """(name, start, length) of the files, without a leading ./"""
    try:
        with tarfile.open(shard, "r:") as tar:
            while (entry := tar.next()) is not None:
                if entry.type in _PLAIN:
                    yield entry.name.removeprefix("./"), entry.offset_data, entry.size
                tar.members.clear()  # type: ignore[attr-defined]  # a kilobyte each, which it would keep
    except (tarfile.TarError, EOFError) as problem:
        raise InputError(f"{shard}: not a whole tar file ({problem})") from None
    except OSError as problem:
        raise InputError(f"{shard}: {problem.strerror}") from None
