"""A file or an open picture -> pixels, upright; and what is wrong with one that is no whole image."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from detr.archives import Member
from detr.bands import Bands, from_array_file, from_picture, from_tiff, is_array, is_tiff, require_channels
from detr.errors import InputError, NotAnImage, TooLarge, UsageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
"""What Pillow may decode for us. Its other formats are rare in this trade and have been the way in for attacks."""

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"),
        *(".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"),
    ]
)
"""What files of these formats are called."""

MOST_PIXELS = 178_956_970
"""Larger images are refused from their header, before anything is decoded: a small file can claim to be huge."""

ImageSource = str | os.PathLike[str] | Member | BinaryIO


def read_image(
    source: ImageSource, *, name: str | None = None, channels: int | None = 3, most_pixels: int = MOST_PIXELS
) -> Bands:
    """The first picture in a file, as [h, w, 3] RGB: upright by its EXIF, alpha dropped, 16 bits scaled to 8.

    With 1 of `channels` it is grey; with another number, or None for whatever it has, the file's own channels are
    given: alpha is one, and arrays (.npy) and TIFFs of any number of bands are read too.

    `name` is what errors call an open file. InputError says what is wrong with a file that is not a whole image, and
    what it looks like: NotAnImage, TooLarge, or damaged; UsageError if there is no such file.
    """
    return _read(source, name, None, channels, most_pixels)[0]


def read_reduced(source: ImageSource, short: int, *, channels: int | None = 3) -> tuple[Bands, tuple[int, int]]:
    """As `read_image`, but a large JPEG at a half, a quarter or an eighth of its size, which is several times as fast.

    Its shorter side stays at least `short`. The second answer is (height, width) of the whole picture.
    """
    return _read(source, None, short, channels)


def _read(
    source: ImageSource,
    name: str | None,
    short: int | None,
    channels: int | None,
    most_pixels: int = MOST_PIXELS,
) -> tuple[Bands, tuple[int, int]]:
    name = name or (str(source) if isinstance(source, (str, os.PathLike, Member)) else "image")
    try:
        return _decoded(source, name, short, channels, most_pixels)
    except Image.DecompressionBombError:
        raise TooLarge(f"{name}: claims more than {most_pixels:,} pixels; such images are not decoded") from None
    except (InputError, UsageError, MemoryError):
        raise
    except Exception as problem:  # a decoder meets damage with whatever exception its own code stumbles into
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise InputError(f"{name}: damaged or cut short ({reason})") from problem


def _decoded(
    source: ImageSource, name: str, short: int | None, channels: int | None, most_pixels: int
) -> tuple[Bands, tuple[int, int]]:
    try:
        opened = _opened(source, name)
    except InputError:
        if (pixels := _of_many_bands(source, channels, name)) is None:
            raise
        return pixels, pixels.shape[:2]
    with opened as picture:
        if picture.width * picture.height > most_pixels:
            raise Image.DecompressionBombError
        if picture.format == "TIFF" and channels not in (1, 3, None) and len(picture.getbands()) != channels:
            pixels = from_tiff(_content(source), name, most_pixels=MOST_PIXELS)  # Pillow drops bands without a name
            require_channels(pixels, channels, name)
            return pixels, pixels.shape[:2]
        width, height = picture.size
        if short is not None:
            picture.draft(None, (short, short))
        read = picture.size
        picture.load()
        upright = _upright(picture, name)
        return _as_pixels(upright, channels, name), (height, width) if upright.size == read else (width, height)


def read_size(path: str | os.PathLike[str] | Member) -> tuple[int, int]:
    """(height, width) that `read_image` would give, mostly from the header alone; InputError as there."""
    return _read_header(path)[0]


def read_orientation(path: str | os.PathLike[str] | Member) -> int:
    """EXIF's orientation, 1 (upright) to 8; InputError where there is no image to be turned."""
    return _read_header(path)[1]


def _read_header(path: str | os.PathLike[str] | Member) -> tuple[tuple[int, int], int]:
    name = str(path)
    try:
        return _header(path, name)
    except (InputError, UsageError):
        raise
    except Exception as problem:
        raise InputError(f"{name}: damaged or cut short ({problem})") from problem


def _header(path: str | os.PathLike[str] | Member, name: str) -> tuple[tuple[int, int], int]:
    try:
        opened = _opened(path, name)
    except InputError:
        if (pixels := _of_many_bands(path, None, name)) is None:
            raise
        return pixels.shape[:2], 1
    with opened as picture:
        if picture.format == "PNG" and _has_texts_at_its_end(path):
            picture.load()
        orientation = _orientation(picture)
        if orientation not in (5, 6, 7, 8):
            return (picture.height, picture.width), orientation
        if picture.format == "TIFF":  # is turned by decoding it, and says so before or after, as Pillow's age is
            upright = _upright(picture, name)
            return (upright.height, upright.width), orientation
        return (picture.width, picture.height), orientation


def _orientation(picture: Image.Image) -> int:
    try:
        # That of PngImageFile would decode the whole image to find an EXIF written after it.
        return int(Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable, which is taken as upright here as where the image is decoded
        return 1


def _has_texts_at_its_end(path: str | os.PathLike[str] | Member) -> bool:
    """Whether a PNG has an EXIF, or texts which may hold one, behind its pixels."""
    with (path if isinstance(path, Member) else Path(path)).open("rb") as stream:
        stream.seek(8)
        is_behind = False
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            is_behind = is_behind or head[4:] == b"IDAT"
            if is_behind and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            stream.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def count_pictures(path: str | os.PathLike[str]) -> int:
    """How many pictures a file that `read_image` could read holds: more than one in animations and multi-page TIFF.

    The views of one scene that some cameras pack into a JPEG count as one.
    """
    try:
        opened = Image.open(Path(path), formats=FORMATS)
    except Image.UnidentifiedImageError:  # an array, or bands
        return 1
    with opened as picture:
        return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


def to_pixels(picture: Image.Image, *, name: str = "image", channels: int | None = 3) -> Bands:
    """An open Pillow image -> [h, w, C] as `read_image` gives it, upright by its EXIF."""
    return _as_pixels(_upright(picture, name), channels, name)


def _opened(source: ImageSource, name: str) -> Image.Image:
    try:
        if isinstance(source, Member):
            source = source.open()
        return Image.open(Path(source) if isinstance(source, (str, os.PathLike)) else source, formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise NotAnImage(f"{name}: not an image we can read ({_looks_like(source)})") from None
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{name}: is a folder, not an image") from None
    except OSError as problem:
        if problem.errno is None:  # a decoder's own word about damage
            raise
        raise InputError(f"{name}: {problem.strerror}") from None


def _upright(picture: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as problem:  # the pixels are whole; only the note about their orientation is lost
        warnings.warn(f"{name}: unreadable EXIF ({problem}); taken as upright", stacklevel=3)
        return picture


def _of_many_bands(source: ImageSource, channels: int | None, name: str) -> Bands | None:
    """What Pillow can't read: an array, or a TIFF whose bands it has no name for; None for all else."""
    try:
        head = _head(source)
    except OSError:
        return None
    if is_array(head):
        pixels = from_array_file(_content(source), name, most_pixels=MOST_PIXELS)
    elif is_tiff(head) and channels != 3:
        pixels = from_tiff(_content(source), name, most_pixels=MOST_PIXELS)
    else:
        return None
    require_channels(pixels, channels, name)
    return pixels


def _as_pixels(picture: Image.Image, channels: int | None, name: str) -> Bands:
    if picture.mode == "F":
        raise InputError(f"{name}: floating-point pixels have no agreed range; save it with 8 or 16 bits per channel")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        grey = _from_16_bits(np.asarray(picture), name)
        return np.repeat(grey, 3, axis=2) if channels == 3 else grey
    if channels != 3:
        return from_picture(picture, channels, name)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # resolves a transparent palette, which RGB alone would warn about
    return np.array(picture.convert("RGB"))


def _from_16_bits(values: NDArray[np.generic], name: str) -> Bands:
    """[h, w] grey of 16 bits -> [h, w, 1] of 8. 65535 / 257 = 255, so white stays white."""
    wide = values.astype(np.int64)
    if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
        raise InputError(f"{name}: grey values reach {wide.max()}; expected 8 or 16 bits per channel")
    return ((wide + 128) // 257).astype(np.uint8)[:, :, None]


_SIGNS = (
    (b"\x89PNG", "a damaged PNG"),
    (b"\xff\xd8", "a damaged JPEG"),
    (b"GIF8", "a damaged GIF"),
    (b"II*\0", "a TIFF of several bands, which need a model with as many model.input.channels, or a damaged one"),
    (b"MM\0*", "a TIFF of several bands, which need a model with as many model.input.channels, or a damaged one"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"8BPS", "a Photoshop file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with git lfs pull"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)


def _looks_like(source: ImageSource) -> str:
    return looks_like(_head(source))


def _head(source: ImageSource) -> bytes:
    return _content(source, 512).getvalue()


def _content(source: ImageSource, most: int = -1) -> BytesIO:
    if isinstance(source, Member):
        return source.open()
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            return BytesIO(file.read(most))
    source.seek(0)
    content = BytesIO(source.read(most))
    source.seek(0)
    return content


def looks_like(head: bytes) -> str:
    """What the first bytes of a file suggest it is, in words."""
    if not head:
        return "the file is empty"
    for sign, words in _SIGNS:
        if head.startswith(sign):
            return f"looks like {words}"
    if head.startswith(b"RIFF"):
        kind = {b"WEBP": "a damaged WebP", b"AVI ": "an AVI video", b"WAVE": "a WAV sound"}
        return f"looks like {kind.get(head[8:12], 'RIFF')}"
    if head[4:8] == b"ftyp":
        still = head[8:12] in (b"heic", b"heix", b"mif1", b"msf1")
        return "looks like HEIC; save it as JPEG" if still else "looks like an MP4 video"
    if not any(head):
        return "it is all zeros"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "looks like HTML, perhaps a web page saved in its place"
    if text.startswith(b"<"):
        return "looks like XML or SVG"
    if text.startswith((b"{", b"[")):
        return "looks like JSON"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as problem:
        if problem.start < len(head) - 3:
            return "unknown content"
    return "looks like text"
