"""Images and padding as an exported file takes them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from detr.errors import UsageError
from detr.export.about import About

Feeds = dict[str, NDArray[Any]]


def fed(about: About, images: Tensor, padding: Tensor | None) -> Feeds:
    """images [B, C, h, w], padding [B, h, w] or None -> the file's inputs by name.

    A file that prepares pictures itself is given what they are after resizing, in [0, 1], all without padding. One that
    gives boxes in pixels is told that a picture is one pixel: they come as shares of it. UsageError for images of a
    size that the file is not for.
    """
    if about.form.preprocessing:
        assert padding is None or not padding.any()
        return {"images": _array((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1))}
    feeds = _framed(about, images, padding)
    if about.form.max_det is not None:
        feeds["sizes"] = _array(torch.ones(len(images), 2, dtype=torch.int64))
    return feeds


def _framed(about: About, images: Tensor, padding: Tensor | None) -> Feeds:
    height, width = images.shape[-2:]
    most_high, most_wide = (height, width) if about.form.open_size else about.size
    if not about.takes_padding:
        if (height, width) != (most_high, most_wide):
            raise UsageError(
                f"images of {height} x {width}: this file takes {most_high} x {most_wide}; export one of that size"
            )
        return {"images": _array(images)}
    if height > most_high or width > most_wide:
        raise UsageError(f"images of {height} x {width}: this file takes up to {most_high} x {most_wide}")
    if padding is None:
        padding = torch.zeros(len(images), height, width, dtype=torch.bool, device=images.device)
    beyond = (0, most_wide - width, 0, most_high - height)
    return {"images": _array(F.pad(images, beyond)), "padding": _array(F.pad(padding, beyond, value=True))}


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().contiguous().numpy()
