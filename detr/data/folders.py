"""Images on disk: all there before the work begins, and none outside of its folder or archive."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from detr.archives import StoredFile, archive, is_archive
from detr.data.annotations import split_of
from detr.errors import InputError, UsageError, counted
from detr.image_file import IMAGE_SUFFIXES

_DRIVE = re.compile(r"[A-Za-z]:")


def inside(file_name: str) -> PurePosixPath:
    """A file name of an annotation file as a path below the image folder; `\\` separates as `/` does.

    InputError for a name that would lead out of the folder.
    """
    path = PurePosixPath(file_name.replace("\\", "/"))
    if "\0" in file_name or path.is_absolute() or ".." in path.parts or _DRIVE.match(file_name) or not path.parts:
        raise InputError(f"file_name {file_name!r} leaves the image folder; expected a path inside of it")
    return path


def has_images(folder: Path) -> bool:
    """Whether there are images in the folder itself."""
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def has_image(place: Path, name: PurePosixPath) -> bool:
    """Whether a folder or archive holds a file of that name."""
    return archive(place).find(name) is not None if is_archive(place) else (place / name).is_file()


def split_folders(root: Path, fits: Callable[[Path], bool]) -> dict[str, Path]:
    """The folders in `root` that are called as splits are, and fit; UsageError where two would be the same split."""
    found: dict[str, Path] = {}
    for folder in sorted(root.glob("*/")):
        split = split_of(folder.name)
        if split is None or not fits(folder):
            continue
        if split in found:
            raise UsageError(f"{root} has two folders for {split!r}: {found[split].name} and {folder.name}")
        found[split] = folder
    return found


class ImageFolder:
    """The images of a data set: those in a folder, or in a tar file, or in the tar files of a folder."""

    def __init__(self, place: Path) -> None:
        """UsageError for a folder that isn't there, or has nothing in it; InputError for a damaged archive."""
        self.place = place
        self.archive = archive(place) if is_archive(place) else None
        if self.archive is not None:
            return
        if not place.is_dir():
            raise UsageError(f"image folder {place}: {'is a file' if place.exists() else 'no such folder'}")
        if not any(place.iterdir()):
            raise UsageError(f"image folder {place} is empty")

    def file(self, file_name: str) -> StoredFile:
        """The file of that name, which need not be there; InputError for a name that leads out of the folder."""
        path = inside(file_name)
        return (self.archive.find(path) if self.archive else None) or self.place / path

    def require(self, file_names: Iterable[str]) -> None:
        """All images are there: InputError counts the missing ones and names the first five."""
        missing = self.missing(file_names)
        if missing:
            more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
            what = counted(len(missing), "image is", "images are")
            raise InputError(f"{what} missing in {self.place}: {', '.join(missing[:5])}{more}")

    def missing(self, file_names: Iterable[str]) -> list[str]:
        """The paths below the folder that are not there; InputError for names and links that lead out of it."""
        paths = [inside(file_name) for file_name in file_names]
        if self.archive is not None:
            return [str(path) for path in paths if self.archive.find(path) is None]
        names_in: dict[PurePosixPath, list[str]] = defaultdict(list)
        for path in paths:
            names_in[path.parent].append(path.name)
        root = self.place.resolve()
        missing: list[str] = []
        for parent, names in names_in.items():
            missing += _missing(root, parent, names)
        return missing


def _missing(root: Path, parent: PurePosixPath, names: list[str]) -> list[str]:
    folder = root / parent
    if not folder.is_dir():
        return [str(parent / name) for name in names]
    _require_below(root, folder)
    with os.scandir(folder) as entries:
        plain = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    missing = []
    for name in names:
        # A name may be spelt otherwise on disk (case, accents) and still be found by the system.
        if name not in plain:
            if not (folder / name).is_file():
                missing.append(str(parent / name))
            else:
                _require_below(root, folder / name)
    return missing


def _require_below(root: Path, path: Path) -> None:
    real = path.resolve()
    if not real.is_relative_to(root):
        raise InputError(f"{path} is a link to {real}, outside of the image folder; expected a file inside of it")
