"""Published weights by name: where they are on this machine, and a cache that checks what it holds.

The cache is `$DETR_HOME/weights` (`~/.cache/detr/weights`). `DETR_OFFLINE=1` forbids the network. Where the authors
publish no SHA-256, the one of the first download is recorded beside the file and checked ever after.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from detr.download import fetch
from detr.errors import InputError, UsageError, did_you_mean
from detr.files import home, kept_in, shipped, write_text
from detr.published import RELEASES, Release

__all__ = ["RELEASES", "Release", "cached_at", "file_sha256", "recorded_hash", "resolve", "where"]

_WHOLE = 64  # digits of a SHA-256


def resolve(name_or_path: str | os.PathLike[str], *, say: Callable[[str], None] | None = None) -> Path:
    """The file behind a release name (downloaded if need be, hash checked) or behind a path.

    UsageError for an unknown name or a path where nothing is; InputError when a file can't be had or isn't what it was.
    """
    name = os.fspath(name_or_path)
    if not name:
        raise UsageError("an empty name of weights; expected a file or a release (`detr weights list` shows them)")
    if name in RELEASES:
        return _of_release(name, say or _to_stderr)
    path = Path(name)
    if path.exists():
        return path
    if "/" in name or os.sep in name or path.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        on_the_hub = name.count("/") == 1 and not path.suffix and not path.parent.exists()
        nearest = did_you_mean(path.stem, RELEASES) if path.name == name else ""
        nearest = "; nothing is fetched from the Hub, `detr weights list` shows what is" if on_the_hub else nearest
        raise UsageError(f"no such weights file: {name}{nearest}")
    nearest = did_you_mean(name, RELEASES) or "; `detr weights list` shows them"
    raise UsageError(f"{name!r} is neither a file of weights nor a release{nearest}")


def where(name: str) -> str:
    """What using the release `name` takes: `"embedded"`, `"cached"`, `"download"`, `"by hand"` (with a browser), or
    `"missing"` (install again).
    """
    release = RELEASES[name]
    if _is_embedded(release):
        return "embedded" if _embedded(release).is_file() else "missing"
    if cached_at(name).is_file():
        return "cached"
    return "by hand" if release.url is None else "download"


def cached_at(name: str) -> Path:
    """Where the cache keeps (or would keep) the file of the release `name`."""
    return home() / "weights" / RELEASES[name].file_name


def recorded_hash(name: str) -> str | None:
    """SHA-256 to hold the file against: the published one, or the one recorded at the first download.

    Where only its first digits are published, those, until the file has been seen.
    """
    published = RELEASES[name].sha256
    if published is not None and len(published) == _WHOLE:
        return published
    record = _record(cached_at(name))
    return record.read_text(encoding="utf-8").split()[0] if record.is_file() else published


def _of_release(name: str, say: Callable[[str], None]) -> Path:
    release, path = RELEASES[name], cached_at(name)
    if _is_embedded(release):
        if not _embedded(release).is_file():
            raise InputError(f"{name} comes with the toolkit, but {_embedded(release)} is missing; install again")
        return _embedded(release)
    if path.is_file():
        _check(name, path, say)
        return path
    if release.url is None:
        raise InputError(
            f"{name} lies where only a browser can fetch it: open {release.page}, download {release.file_name} "
            f"and put it at {path}; or give its path in place of the name"
        )
    if os.environ.get("DETR_OFFLINE", "0") not in ("", "0"):
        raise InputError(f"{name} is not in the cache and DETR_OFFLINE is set; get {release.url} and put it at {path}")
    kept_in("weights")
    say(f"{name}: downloading {release.url} to {path}")
    fetch(release.url, path, sha256=recorded_hash(name), progress=_shown)
    _check(name, path, say)
    return path


def _check(name: str, path: Path, say: Callable[[str], None]) -> None:
    """Hold a cached file against its hash; record the hash of one seen for the first time."""
    expected, actual = recorded_hash(name), file_sha256(path)
    if expected is not None and not actual.startswith(expected):
        if RELEASES[name].url is None:
            raise InputError(
                f"{path} is not the published file (SHA-256 {actual[:16]}..., expected {expected[:16]}...); "
                f"get it from {RELEASES[name].page}, or give the path of yours in place of the name"
            )
        path.unlink()
        raise InputError(
            f"{path} is not the file it was (SHA-256 {actual[:16]}..., expected {expected[:16]}...); deleted, "
            "run again to fetch it"
        )
    if expected is None or len(expected) < _WHOLE:
        write_text(_record(path), f"{actual}  {path.name}\n")
        published = "no SHA-256 is published" if expected is None else f"only {expected}... of its SHA-256 is published"
        say(f"{name}: {published}; recorded {actual[:16]}... and will check it from now on")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _is_embedded(release: Release) -> bool:
    return release.url is None and release.page is None


def _embedded(release: Release) -> Path:
    return shipped("weights") / release.file_name


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _shown(done: int, total: int | None) -> None:
    """One line on a terminal, moved along as bytes come."""
    if sys.stderr.isatty():
        share = f" of {total / 1e6:,.1f} MB ({done / total:.0%})" if total else " MB"
        print(f"\r{done / 1e6:,.1f}{share}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
