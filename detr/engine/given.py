"""Pictures as users have them -> frames: paths and URLs, PIL images, arrays, tensors, and any number of those."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detr.errors import InputError, UsageError
from detr.image import RGB, to_rgb
from detr.video import Frame, Source, frames

Channels = Literal["bgr", "rgb"]
Picture: TypeAlias = str | int | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor


def given_frames(source: Picture | Iterable[Picture], *, channels: Channels, stride: int) -> Iterator[Frame]:
    """Each picture of a source, with a name for those that have none; of videos every `stride`-th frame.

    channels: order of colours in arrays. InputError says what is wrong with a picture.
    """
    if channels not in ("bgr", "rgb"):
        raise UsageError(f"channels {channels!r}; expected 'bgr' or 'rgb'")
    if isinstance(source, (str, int, os.PathLike)):
        return frames(source, stride=stride)
    if isinstance(source, Tensor) and source.ndim == 4:
        source = list(source)
    many: Iterable[Any] = [source] if isinstance(source, (Image.Image, np.ndarray, Tensor)) else source
    if not isinstance(many, Iterable):
        raise UsageError(
            f"cannot look for objects in a {type(source).__name__}; expected a path, image, array or tensor"
        )
    return _each(many, channels, stride)


def _each(many: Iterable[Any], channels: Channels, stride: int) -> Iterator[Frame]:
    for number, one in enumerate(many):
        if isinstance(one, (str, int, os.PathLike)):
            yield from frames(one, stride=stride)
            continue
        name = f"image{number}"
        if isinstance(one, Image.Image):
            name = getattr(one, "filename", "") or name
            image = to_rgb(one, name=name)
        elif isinstance(one, np.ndarray):
            image = _from_array(one, channels, name)
        elif isinstance(one, Tensor):
            image = _from_tensor(one, name)
        else:
            raise UsageError(f"picture {number} is a {type(one).__name__}; expected a path, image, array or tensor")
        yield Frame(image, Source("image", str(Path(name))))


def _from_array(array: NDArray[Any], channels: Channels, name: str) -> RGB:
    """[h, w], [h, w, 1], [h, w, 3] or [h, w, 4] uint8 -> RGB."""
    if array.dtype != np.uint8:
        raise InputError(f"{name}: an array of {array.dtype}; expected uint8 in [0, 255]")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{name}: an array of shape {array.shape}; expected [h, w], [h, w, 3] or [h, w, 4]")
    colours = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
    return np.ascontiguousarray(colours[:, :, ::-1] if channels == "bgr" else colours)


def _from_tensor(tensor: Tensor, name: str) -> RGB:
    """[3, h, w] RGB, uint8 or floats in [0, 1] -> array."""
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise InputError(f"{name}: a tensor of shape {tuple(tensor.shape)}; expected [3, h, w] or [B, 3, h, w]")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        low, high = (float(value) for value in tensor.float().aminmax())
        if not (math.isfinite(low) and math.isfinite(high) and low >= -1e-3 and high <= 1 + 1e-3):
            raise InputError(f"{name}: floats from {low:g} to {high:g}; expected [0, 1], before any normalisation")
        tensor = (tensor.float().clamp(0, 1) * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise InputError(f"{name}: a tensor of {tensor.dtype}; expected uint8, or floats in [0, 1]")
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
