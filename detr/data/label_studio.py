"""Label Studio's names of images, which are places of its server, as paths below an image folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from detr.data.folders import has_image, inside
from detr.errors import InputError

_LOCAL = re.compile(r"(?:https?://[^/]+)?/data/local-files/\?d=(.+)")
_UPLOAD = re.compile(r"(?:https?://[^/]+)?/data/upload/(?:\d+/)?([^/]+)")
_MARK = re.compile(r"[0-9a-f]{6,8}-(?=.)")  # what an uploaded file gets in front of its name


def possible_names(file_name: str) -> tuple[str, ...]:
    """Where the image may be, the likeliest first; any other name is what it is.

    `/data/local-files/?d=set%2Fa.jpg` is `set/a.jpg` or `a.jpg`, `/data/upload/1/1a2b3c4d-a.jpg` is `1a2b3c4d-a.jpg`
    or `a.jpg`.
    """
    if found := _LOCAL.fullmatch(file_name):
        parts = PurePosixPath(unquote(found[1]).replace("\\", "/").lstrip("/")).parts
        return tuple("/".join(parts[start:]) for start in range(len(parts)))
    if found := _UPLOAD.fullmatch(file_name):
        name = unquote(found[1])
        return tuple(dict.fromkeys((name, _MARK.sub("", name, count=1))))
    return (file_name,)


def names_below(images: Path | None, file_names: Sequence[str]) -> tuple[str, ...]:
    """Each as it is found in the image folder or archive; the likeliest where it isn't, or no folder is known.

    InputError where two names would be the same file.
    """
    names = [_name_below(images, possible_names(file_name)) for file_name in file_names]
    called: dict[str, str] = {}
    for name, file_name in zip(names, file_names, strict=True):
        if name != file_name and called.setdefault(name, file_name) != file_name:
            both = f"{called[name]!r} and {file_name!r}"
            raise InputError(f"{both} would both be {name} in {images}; expected the folders that these names speak of")
    return tuple(names)


def _name_below(images: Path | None, possible: tuple[str, ...]) -> str:
    if images is None or len(possible) == 1:
        return possible[0]
    return next((name for name in possible if has_image(images, inside(name))), possible[0])
