"""One file over https: written aside, resumed where it stopped, checked before anybody sees it."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from detr.errors import InputError, NotWritten
from detr.files import disk_said

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are and, where known, the bytes there will be."""
Opener = urllib.request.OpenerDirector

_TIMEOUT = 30.0  # seconds without a byte
_OF_FILES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
)
_NO_SUCH_RANGE = 416  # what servers answer when the part is whole, or longer than the file


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Refuses to be led away from https."""

    def redirect_request(self, request: Any, file: Any, code: int, message: str, headers: Any, url: str) -> Any:
        try:
            _require_https(url)
        except InputError:
            file.close()
            raise
        return super().redirect_request(request, file, code, message, headers, url)


def fetch(
    url: str, path: Path, *, sha256: str | None = None, progress: Progress | None = None, opener: Opener | None = None
) -> None:
    """Download `url` to `path`, which appears only whole and, where `sha256` (or its start) is given, only right.

    What came before a broken connection or Ctrl-C stays in `path`.part, and the next call goes on from there.
    InputError says what went wrong; a file with a wrong hash is deleted.
    """
    _require_https(url)
    opener = opener or urllib.request.build_opener(HttpsOnly)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    # Taking the part under a name of our own keeps two processes from writing into one file.
    own = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        os.replace(part, own)
    except FileNotFoundError:
        own.touch()
    try:
        _complete(url, own, _stamp(part), progress, opener)
        _require_right(url, own, sha256)
        os.replace(own, path)
        _stamp(part).unlink(missing_ok=True)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno in _OF_FILES:  # of a URLError there is no number
            raise NotWritten(f"cannot write {path}: {disk_said(problem)}; when that is mended, run again") from None
        if isinstance(problem, urllib.error.HTTPError):
            problem.close()
        advice = f"run again to go on, or put the file at {path}"
        raise InputError(f"cannot download {url}: {_reason(problem)}; {advice}") from None
    finally:
        with suppress(OSError):  # where nothing can be written any more, what came stays under its own name
            if own.exists() and own.stat().st_size:
                os.replace(own, part)
            own.unlink(missing_ok=True)


def _complete(url: str, own: Path, stamp: Path, progress: Progress | None, opener: Opener) -> None:
    """Receive what is missing; everything, where the server has no use for what there is."""
    try:
        _receive(url, own, stamp, progress, opener)
    except urllib.error.HTTPError as problem:
        if problem.code != _NO_SUCH_RANGE:
            raise
        problem.close()
        os.truncate(own, 0)
        _receive(url, own, stamp, progress, opener)


def _receive(url: str, own: Path, stamp: Path, progress: Progress | None, opener: Opener) -> None:
    """Append to `own` what is missing. `stamp` keeps the server's ETag, so that two versions are never joined."""
    done = own.stat().st_size
    tag = stamp.read_text(encoding="utf-8") if stamp.is_file() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "detr"})
    if done and tag:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", tag)
    with opener.open(request, timeout=_TIMEOUT) as answer:
        if answer.status != 206 or _range_start(answer) != done:
            done = 0
        total = _total(answer, done)
        stamp.write_text(answer.headers.get("ETag", ""), encoding="utf-8")
        with own.open("r+b") as file:
            file.truncate(done)
            file.seek(done)
            while block := answer.read(1 << 18):
                file.write(block)
                done += len(block)
                if progress:
                    progress(done, total)
    if total is not None and done != total:
        raise InputError(f"{url}: the connection ended after {done:,} of {total:,} bytes; run again to go on")


def _range_start(answer: Any) -> int | None:
    """`bytes 100-199/200` -> 100"""
    first = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


def _total(answer: Any, done: int) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return done + int(length) if length.isdigit() else None


def _require_right(url: str, own: Path, sha256: str | None) -> None:
    with own.open("rb") as file:
        start = file.read(256).lstrip().lower()
        file.seek(0)
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
    if sha256 is not None and not sha.hexdigest().startswith(sha256):
        own.unlink()
        raise InputError(f"{url}: wrong SHA-256 ({sha.hexdigest()[:16]}..., expected {sha256[:16]}...); deleted")
    if not start or start.startswith((b"<!doctype", b"<html")):
        own.unlink()
        raise InputError(f"{url}: the server sent {'a web page' if start else 'nothing'} instead of a file; deleted")


def _require_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise InputError(f"{url}: only https is followed")


def _stamp(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _reason(problem: Exception) -> str:
    if isinstance(problem, urllib.error.HTTPError):
        return f"the server answered {problem.code} {problem.reason}"
    cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    return getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__
