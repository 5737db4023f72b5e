"""Pictures as users have them -> frames: paths, URLs, bytes, PIL images, arrays, tensors, and any number of those."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from io import BytesIO, TextIOBase
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detr.bands import Bands, from_picture
from detr.errors import InputError, UsageError
from detr.image_file import read_image, to_pixels
from detr.video import Frame, Source, frames

Channels = Literal["bgr", "rgb"]
Encoded: TypeAlias = bytes | bytearray | memoryview | BinaryIO
Picture: TypeAlias = str | int | os.PathLike[str] | Encoded | Image.Image | NDArray[Any] | Tensor

_EXPECTED = "expected a path, the bytes of a file, an image, array or tensor"


def given_frames(
    source: Picture | Iterable[Picture], *, channels: Channels, stride: int, bands: int
) -> Iterator[Frame]:
    """Each picture of a source, with a name for those that have none; of videos every `stride`-th frame.

    channels: order of colours in arrays. bands: how many channels the pictures are to have. InputError says what is
    wrong with a picture.
    """
    if channels not in ("bgr", "rgb"):
        raise UsageError(f"channels {channels!r}; expected 'bgr' or 'rgb'")
    if isinstance(source, (str, int, os.PathLike)):
        return frames(source, stride=stride, channels=bands)
    if isinstance(source, Tensor) and source.ndim == 4:
        source = list(source)
    alone = isinstance(source, (Image.Image, np.ndarray, Tensor)) or _is_encoded(source)
    many: Iterable[Any] = [source] if alone else source  # type: ignore[assignment]
    if not isinstance(many, Iterable) or isinstance(many, TextIOBase):
        raise UsageError(f"cannot look for objects in a {type(source).__name__}; {_EXPECTED}")
    return _each(many, channels, stride, bands)


def _each(many: Iterable[Any], channels: Channels, stride: int, bands: int) -> Iterator[Frame]:
    for number, one in enumerate(many):
        if isinstance(one, (str, int, os.PathLike)):
            yield from frames(one, stride=stride, channels=bands)
            continue
        name = f"image{number}"
        if isinstance(one, Image.Image):
            name = getattr(one, "filename", "") or name
            image = to_pixels(one, name=name, channels=bands)
        elif _is_encoded(one):
            stream = BytesIO(one) if isinstance(one, (bytes, bytearray, memoryview)) else one
            name = str(getattr(one, "name", name))
            image = read_image(stream, name=name, channels=bands)
        elif isinstance(one, np.ndarray):
            image = _from_array(one, channels, bands, name)
        elif isinstance(one, Tensor):
            image = _from_tensor(one, bands, name)
        else:
            raise UsageError(f"picture {number} is a {type(one).__name__}; {_EXPECTED}")
        yield Frame(image, Source("image", str(Path(name))))


def _is_encoded(one: object) -> bool:
    """Whether it is what a file of a picture holds, or such a file that is open."""
    is_open = hasattr(one, "read") and not isinstance(one, TextIOBase)
    return isinstance(one, (bytes, bytearray, memoryview)) or is_open


def _from_array(array: NDArray[Any], channels: Channels, bands: int, name: str) -> Bands:
    """[h, w] or [h, w, C] uint8 -> [h, w, bands]. Three channels of four are RGB, one is grey and made of colours."""
    if array.dtype != np.uint8:
        raise InputError(f"{name}: an array of {array.dtype}; expected uint8 in [0, 255]")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in {1, 3, 4, bands} or 0 in array.shape:
        more = "" if bands in (1, 3, 4) else f" or [h, w, {bands}]"
        raise InputError(f"{name}: an array of shape {array.shape}; expected [h, w], [h, w, 3], [h, w, 4]{more}")
    if array.shape[2] == bands != 3:
        return np.ascontiguousarray(array)
    colours = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
    rgb = np.ascontiguousarray(colours[:, :, ::-1] if channels == "bgr" else colours)
    return rgb if bands == 3 else from_picture(Image.fromarray(rgb), bands, name)


def _from_tensor(tensor: Tensor, bands: int, name: str) -> Bands:
    """[bands, h, w] (RGB where there are three), uint8 or floats in [0, 1] -> array."""
    if tensor.ndim != 3 or tensor.shape[0] != bands or 0 in tensor.shape:
        expected = f"[{bands}, h, w] or [B, {bands}, h, w]"
        raise InputError(f"{name}: a tensor of shape {tuple(tensor.shape)}; expected {expected}")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        low, high = (float(value) for value in tensor.float().aminmax())
        if not (math.isfinite(low) and math.isfinite(high) and low >= -1e-3 and high <= 1 + 1e-3):
            raise InputError(f"{name}: floats from {low:g} to {high:g}; expected [0, 1], before any normalisation")
        tensor = (tensor.float().clamp(0, 1) * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise InputError(f"{name}: a tensor of {tensor.dtype}; expected uint8, or floats in [0, 1]")
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
