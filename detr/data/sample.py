"""One image with its boxes on the way to the network, and draws that depend on nothing but their key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a data set with what is to be found in it."""

    image: tv_tensors.Image  # [C, h, w] uint8, mostly RGB
    boxes: tv_tensors.BoundingBoxes  # [N, 4] xyxy in pixels of the image
    labels: Tensor  # [N] int64
    image_id: int | str
    size: tuple[int, int]  # (height, width) on disk, upright; stays when the image is cropped


@contextmanager
def drawing_from(*key: int) -> Iterator[None]:
    """Within the block torch's CPU generator draws as `key` says; after it, as if the block had not been."""
    before = torch.get_rng_state()
    # Not torch.manual_seed: that would set the generators of all GPUs as well, and they'd stay so.
    torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def uniform(low: float, high: float) -> float:
    """A number from torch's CPU generator."""
    return low + (high - low) * float(torch.rand(()))


def whole(low: int, high: int) -> int:
    """A whole number from torch's CPU generator, both ends included."""
    return int(torch.randint(low, high + 1, ()))
