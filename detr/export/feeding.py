"""Images and padding as an exported file takes them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from detr.errors import UsageError
from detr.export.about import About


def fed(about: About, images: Tensor, padding: Tensor | None) -> dict[str, NDArray[Any]]:
    """images [B, C, h, w], padding [B, h, w] or None -> the file's inputs by name.

    UsageError for images of a size that the file is not for.
    """
    height, width = images.shape[-2:]
    most_high, most_wide = about.size
    if not about.takes_padding:
        if (height, width) != about.size:
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
