"""File or frame -> the tensor the network takes. Training, evaluation and prediction all prepare images here."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detr.config import Config

RGB = NDArray[np.uint8]  # [h, w, 3]


class InputConfig(Config):
    """How an image becomes the network's input. It travels in every checkpoint."""

    height: int = 640
    width: int = 640
    interpolation: Literal["bilinear"] = "bilinear"
    mean: tuple[float, float, float] | None = None  # None: values stay in [0, 1], as in RT-DETR
    std: tuple[float, float, float] | None = None


def prepare(image: RGB, config: InputConfig) -> Tensor:
    """[h, w, 3] uint8 RGB -> [3, height, width] float32: resized without keeping the aspect, scaled, normalised."""
    picture = Image.fromarray(image)
    if picture.size != (config.width, config.height):
        picture = picture.resize((config.width, config.height), Image.Resampling.BILINEAR)
    return normalise(torch.from_numpy(np.array(picture)).permute(2, 0, 1), config)


def normalise(image: Tensor, config: InputConfig) -> Tensor:
    """[..., 3, h, w] uint8 -> float32 in [0, 1], less the mean and over the deviation where the model has them."""
    scaled = image.to(torch.float32) / 255
    if config.mean is None or config.std is None:
        return scaled
    mean = torch.tensor(config.mean, device=image.device).view(3, 1, 1)
    return (scaled - mean) / torch.tensor(config.std, device=image.device).view(3, 1, 1)
