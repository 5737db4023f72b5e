"""What the user named -> the single images, videos, cameras and streams it stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from PIL import Image

from detr.errors import UsageError, did_you_mean
from detr.files import read_text
from detr.image_file import FORMATS, IMAGE_SUFFIXES
from detr.published import RELEASES
from detr.video.pipes import is_pipe

Kind = Literal["image", "video", "camera", "url", "pipe", "sequence"]

VIDEO_SUFFIXES = frozenset(
    [
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv"),
        *(".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".h265", ".hevc", ".y4m"),
    ]
)
_ARRAY = ".npy"
_WEIGHTS = frozenset((".safetensors", ".pth", ".pt", ".pt2", ".ckpt", ".onnx", ".engine"))
URL_SCHEMES = frozenset(("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt"))


@dataclass(frozen=True)
class Source:
    """One image, video, camera or stream."""

    kind: Kind
    path: str  # a path, a URL, the number of a camera, or "-"; of a sequence the folder of its pictures
    files: tuple[str, ...] = ()  # of a sequence, in order
    rate: Fraction | None = None  # of a sequence, frames per second

    @property
    def name(self) -> str:
        """What files made from it are called, without an ending."""
        if self.kind == "camera":
            return f"camera-{self.path}"
        if self.kind == "pipe":
            return "stdin"
        if self.kind == "sequence":
            return Path(self.path).absolute().name or "sequence"
        if self.kind == "url":
            parts = urlsplit(self.path)
            return Path(unquote(parts.path)).stem or parts.hostname or "stream"
        return Path(self.path).stem or "source"

    @property
    def called(self) -> str:
        """In messages."""
        return {"camera": f"camera {self.path}", "pipe": "standard input"}.get(self.kind, self.path)

    @property
    def is_live(self) -> bool:
        """It comes when it comes, and cannot be opened twice."""
        return self.kind in ("camera", "url", "pipe") or (self.kind == "video" and is_pipe(self.path))


def find_sources(source: str | int | os.PathLike[str] | Iterable[str | int | os.PathLike[str]]) -> list[Source]:
    """Everything that `source`, or each of several, stands for, in the order given; folders and globs are sorted.

    A path of an image or video; a folder of them (not the folders within); a glob; a `.txt` file with one of these per
    line (relative to that file, `#` starts a comment line); a URL; the number of a camera; `-` for standard input.
    UsageError for what isn't there or stands for nothing.
    """
    if isinstance(source, (str, int, os.PathLike)):
        return list(_found(source))
    return [found for one in source for found in _found(one)]


def as_sequences(sources: Iterable[Source], rate: float) -> list[Source]:
    """Images that follow each other and lie in one folder taken for a video of `rate` frames per second."""
    joined: list[Source] = []
    for folder, group in groupby(sources, key=lambda one: Path(one.path).parent if one.kind == "image" else None):
        if folder is None:
            joined += group
        else:
            files = tuple(one.path for one in group)
            joined.append(Source("sequence", str(folder), files, Fraction(rate).limit_denominator(1_000_000)))
    return joined


def _found(source: str | int | os.PathLike[str]) -> Iterator[Source]:
    text = str(source).strip() if isinstance(source, (str, int)) else os.fspath(source)
    path = Path(text)
    if not text:
        raise UsageError("an empty source; expected an image, a video, a folder, a camera number or a URL")
    if "\0" in text:
        raise UsageError(f"{text!r}: a path cannot hold a NUL character")
    if text == "-":
        yield Source("pipe", text)
    elif text.isascii() and text.isdigit() and not path.exists():
        yield Source("camera", text)
    elif "://" in text:
        yield Source("url", _checked_url(text))
    elif path.is_dir():
        inside = sorted(path.iterdir(), key=lambda entry: entry.name)
        yield from _many(inside, f"{text}: no image or video in this folder")
    elif path.is_file() and path.suffix.lower() == ".txt":
        yield from _listed(path)
    elif path.is_file() and path.suffix.lower() in _WEIGHTS:
        raise UsageError(f"{text} is a file of weights, no image or video; they are given as --weights {text}")
    elif path.exists():  # files, but also pipes and device files
        yield Source(_kind(path), text)
    elif glob.has_magic(text):
        matches = sorted(glob.glob(text, recursive=True))
        yield from _many([Path(match) for match in matches], f"{text}: no image or video matches")
    elif text in RELEASES:
        raise UsageError(f"{text} is the name of weights, no image or video; they are given as --weights {text}")
    else:
        raise UsageError(f"{text}: no such file or folder{_neighbour(path)}")


def _checked_url(text: str) -> str:
    """No odd characters: by them, two parsers are made to read one URL differently."""
    scheme = text.split("://", 1)[0].lower()
    if scheme == "file":
        raise UsageError(f"{text}: give a local file by its path")
    if scheme not in URL_SCHEMES:
        raise UsageError(f"{text}: unknown kind of URL; expected one of {', '.join(sorted(URL_SCHEMES))}")
    if "\\" in text or any(character.isspace() or ord(character) < 32 for character in text):
        raise UsageError(f"{text!r}: a URL cannot hold blanks or backslashes")
    return text


def _many(paths: Iterable[Path], nothing: str) -> Iterator[Source]:
    files = [path for path in paths if not path.is_dir()]
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES or _is_video(path)]
    found = found or [path for path in files if path.suffix.lower() == _ARRAY]  # beside images they are something else
    if not found:
        raise UsageError(nothing)
    for path in found:
        yield Source(_kind(path), str(path))


def _is_video(path: Path) -> bool:
    """A pipe that nobody named would be waited for."""
    return path.suffix.lower() in VIDEO_SUFFIXES and (path.is_file() or not path.exists())


def _listed(path: Path) -> Iterator[Source]:
    lines = read_text(path).splitlines()
    words = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not words:
        raise UsageError(f"{path}: an empty list; expected one source per line")
    for word in words:
        if word == "-" or word.lower().endswith(".txt"):
            raise UsageError(f"{path}: {word!r} cannot stand in a list of sources")
        remote_or_absolute = "://" in word or word.isdigit() or Path(word).is_absolute()
        yield from _found(word if remote_or_absolute else path.parent / word)


def _kind(path: Path) -> Kind:
    """By the ending; a file with an unknown one is an image if Pillow knows its first bytes."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix == _ARRAY:
        return "image"
    if suffix in VIDEO_SUFFIXES or not path.is_file():
        return "video"
    try:
        with Image.open(path, formats=FORMATS):
            return "image"
    except Exception:  # whatever it is, it isn't an image; the video reader will say what is wrong with it
        return "video"


def _neighbour(path: Path) -> str:
    return did_you_mean(path.name, (other.name for other in path.parent.iterdir())) if path.parent.is_dir() else ""
