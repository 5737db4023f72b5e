"""Exported files that tell when a byte of them is another than the one that was written.

Neither ONNX Runtime nor OpenVINO would notice: a bit that flips in a weight moves boxes without a word. So the SHA-256
of an ONNX file is its own end, as the last entry of its metadata, and OpenVINO's XML ends in a comment with that of
itself and of the .bin beside it. What `torch.export` writes is an archive with checksums, which PyTorch doesn't read.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from detr.errors import InputError

_MARK = b"detr.sha256"
_DIGITS = 64
_AS_METADATA = b"\x72\x4f\x0a\x0b" + _MARK + b"\x12\x40", b""  # key and value of `metadata_props` in a ModelProto
_AS_COMMENT = b"<!-- " + _MARK + b" ", b" -->\n"


def seal(path: Path) -> None:
    """Append to an ONNX file, or to an .xml with its .bin beside it, what `require_whole` holds against it."""
    before, after = _around(path)
    digest = _digest_of(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(before + digest + after)


def require_whole(path: Path) -> None:
    """InputError for an exported file with a byte that isn't the one that was written."""
    if not is_whole(path):
        parts = " or of the .bin beside it" if _is_xml(path) else ""
        raise InputError(
            f"{path} isn't what `detr export` wrote: a byte of it{parts} is another; copy or export it again "
            f"(if it was changed on purpose: take {_MARK.decode()} out of it)"
        )


def is_whole(path: Path) -> bool:
    """Also of a file without a seal, as earlier versions and other programs wrote it."""
    if path.suffix.lower() == ".pt2":
        return _archive_is_whole(path)
    stated, size = _stated(path)
    return stated is None or stated == _digest_of(path, size)


def held_against(path: Path) -> str:
    """What `require_whole` has to go by, in words."""
    if path.suffix.lower() == ".pt2":
        return "the archive's checksums"
    return "nothing to check against" if _stated(path)[0] is None else "every byte against its SHA-256"


def _stated(path: Path) -> tuple[bytes | None, int]:
    """The digest that a file ends in, if it does, and how many bytes are before that."""
    before, after = _around(path)
    size = max(0, path.stat().st_size - len(before) - _DIGITS - len(after))
    with path.open("rb") as file:
        file.seek(size)
        stated = file.read().removeprefix(before).removesuffix(after)
    return (stated if len(stated) == _DIGITS else None), size


def _around(path: Path) -> tuple[bytes, bytes]:
    return _AS_COMMENT if _is_xml(path) else _AS_METADATA


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _digest_of(path: Path, size: int) -> bytes:
    """Of so many bytes of the file, and of all the numbers that belong to it."""
    numbers = path.with_suffix(".bin")
    sha = hashlib.sha256()
    for part, end in [(path, size), *([(numbers, numbers.stat().st_size)] if _is_xml(path) else [])]:
        with part.open("rb") as file:
            while block := file.read(min(1 << 20, end - file.tell())):
                sha.update(block)
    return sha.hexdigest().encode()


def _archive_is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            return zipfile.ZipFile(file).testzip() is None
        except Exception:  # a damaged archive is met with whatever its reader stumbles into
            return False
