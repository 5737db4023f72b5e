"""Pictures of another number of channels than three: grey ones, RGB and depth, and those of several spectral bands."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detr.errors import InputError, TooLarge
from detr.extras import require

Bands = NDArray[np.uint8]  # [h, w, C]

MOST_CHANNELS = 64

_NUMPY = b"\x93NUMPY"
_HEADER = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\}\s*")
_LONGEST_HEADER = 10_000
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_array(head: bytes) -> bool:
    """Whether a file that begins so is an array of NumPy."""
    return head.startswith(_NUMPY)


def is_tiff(head: bytes) -> bool:
    return head.startswith(_TIFF)


def from_array_file(content: BytesIO, name: str, *, most_pixels: int) -> Bands:
    """A .npy file of [h, w] or [h, w, C] uint8; InputError for any other array."""
    # NumPy reads the header as Python code, which Python 3.11 sometimes fails to do in several threads at once.
    head = content.read(12)
    length, start = (int.from_bytes(head[8:10], "little"), 10) if head[6:7] == b"\1" else (_u32(head[8:12]), 12)
    content.seek(start)
    match = _HEADER.fullmatch(content.read(min(length, _LONGEST_HEADER)))
    if match is None:
        raise InputError(f"{name}: damaged or cut short (it begins as an array of NumPy, but does not say of what)")
    kind, is_fortran, sides = match[1].decode(), match[2] == b"True", match[3].split(b",")
    shape = tuple(int(side) for side in sides if side.strip())
    _require_shape(shape, kind, name, most_pixels)
    values = content.read()
    if len(values) != math.prod(shape):
        raise InputError(f"{name}: damaged or cut short ({len(values):,} of {math.prod(shape):,} bytes)")
    array = np.frombuffer(values, np.uint8).reshape(shape, order="F" if is_fortran else "C").copy(order="C")
    return array if array.ndim == 3 else array[:, :, None]


def _u32(four_bytes: bytes) -> int:
    return int.from_bytes(four_bytes, "little")


def from_tiff(content: BytesIO, name: str, *, most_pixels: int) -> Bands:
    """The first image of a TIFF with any number of bands, whose orientation is taken as upright.

    Bands beside each other, one after the other, or as pages of one size. InputError for other than 8 bits.
    """
    require("bands", "a TIFF with several bands")
    import tifffile

    try:
        with tifffile.TiffFile(content) as file:
            series = file.series[0]
            axes, shape = series.axes, series.shape
            _require_shape(_bands_last(shape, axes), series.dtype, name, most_pixels)
            array = series.asarray()
    except InputError:
        raise
    except Exception as problem:  # what a decoder meets in a damaged file is its own
        raise InputError(f"{name}: damaged, or a kind of TIFF that can't be read ({problem})") from None
    if array.ndim == 2:
        return array[:, :, None]
    return array if axes.endswith("S") else np.ascontiguousarray(np.moveaxis(array, 0, -1))


def from_picture(picture: Image.Image, channels: int | None, name: str) -> Bands:
    """An upright picture of Pillow with so many channels, or as many as it has; grey is made of colours.

    InputError where it has another number.
    """
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if channels == 1 or (channels is None and picture.mode == "1"):
        picture = picture.convert("L")
    pixels = np.array(picture)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    require_channels(pixels, channels, name)
    return pixels


def require_channels(pixels: Bands, channels: int | None, name: str) -> None:
    if channels is not None and pixels.shape[2] != channels:
        raise InputError(f"{name}: has {pixels.shape[2]} channels; the model takes {channels} (model.input.channels)")


def band_by_band(pixels: Bands, change: Callable[[Image.Image], Image.Image]) -> Bands:
    """What `change` does to a grey picture, done to each band."""
    bands = [np.asarray(change(Image.fromarray(np.ascontiguousarray(band)))) for band in np.moveaxis(pixels, 2, 0)]
    return np.stack(bands, 2)


def shown(pixels: Bands) -> Bands:
    """[h, w, 3] to look at: grey as grey, otherwise the first three bands, or the first alone if there are two."""
    if pixels.shape[2] == 3:
        return pixels
    return np.repeat(pixels[:, :, :1], 3, 2) if pixels.shape[2] < 3 else np.ascontiguousarray(pixels[:, :, :3])


def _bands_last(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    return shape if len(shape) != 3 or axes.endswith("S") else (*shape[1:], shape[0])


def _require_shape(shape: tuple[int, ...], kind: Any, name: str, most_pixels: int) -> None:
    if kind not in ("|u1", np.uint8):
        raise InputError(f"{name}: numbers of kind {kind}; expected uint8, to which you know best how to scale")
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] > MOST_CHANNELS):
        hint = "; the channels come last" if len(shape) == 3 and 0 < shape[0] <= MOST_CHANNELS else ""
        raise InputError(f"{name}: of shape {tuple(shape)}; expected [h, w] or [h, w, up to {MOST_CHANNELS}]{hint}")
    if shape[0] * shape[1] > most_pixels:
        raise TooLarge(f"{name}: claims more than {most_pixels:,} pixels; such images are not decoded")
