"""Pixels -> the tensor the network takes. Training, evaluation and prediction all prepare images here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from detr.bands import MOST_CHANNELS, Bands, band_by_band, require_channels
from detr.config import Config

RGB = NDArray[np.uint8]  # [h, w, 3]

STRIDE = 32
"""Both sides of an input of one size are multiples of it: one position of the coarsest map."""

MOST_SIDE = 8192
"""Of the network's input: attention over more would take all memory there is, of this machine or any other."""


class InputConfig(Config):
    """How an image becomes the network's input. It travels in every checkpoint.

    "stretch" gives every image one size, whatever its aspect. "short side" keeps the aspect, so that images differ in
    size; in a batch they are then padded (see `padded`). Boxes are shares of the image either way, without padding.
    """

    resize: Literal["stretch", "short side"] = "stretch"
    height: int = Field(default=640, ge=1, le=MOST_SIDE)  # of "stretch"
    width: int = Field(default=640, ge=1, le=MOST_SIDE)
    short: int = Field(default=800, ge=1, le=MOST_SIDE)  # of "short side": what the shorter side becomes,
    long: int = Field(default=1333, ge=1, le=MOST_SIDE)  # or less, so that the longer one is not longer than this
    interpolation: Literal["bilinear"] = "bilinear"  # the one way there is: files say it, and another is refused
    channels: int = Field(default=3, ge=1, le=MOST_CHANNELS)  # 3: RGB; 1: grey; others as the files have them
    mean: tuple[float, ...] | None = None  # of each channel; None: values stay in [0, 1], as in RT-DETR
    std: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _fits(self) -> InputConfig:
        if self.long < self.short:
            raise ValueError(f"long {self.long} is less than short {self.short}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} {list(values)}: expected a number for each of {self.channels} channels")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std {list(self.std)}: expected numbers above 0")
        return self

    @property
    def keeps_aspect(self) -> bool:
        return self.resize == "short side"

    @property
    def frame(self) -> tuple[int, int]:
        """(height, width) of the input: the only one, or that of a wide image at the limit of both sides."""
        return (self.short, self.long) if self.keeps_aspect else (self.height, self.width)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the input that an image of `height` x `width` becomes."""
        if not self.keeps_aspect:
            return self.height, self.width
        shorter, longer = min(height, width), max(height, width)
        short, long = self.short, self.long
        # Which way each side is rounded is DETR's: a pixel more or less would move every box.
        if longer / shorter * short > long:
            short = round(long * shorter / longer)
        if short > 0:  # else the image is a line, and stays one
            long = int(short * longer / shorter)
        return (max(1, short), long) if height <= width else (long, max(1, short))


def _stretched(config: InputConfig) -> InputConfig:
    if config.keeps_aspect:
        raise ValueError("resize 'short side' is for models that tell padding from image; this one needs 'stretch'")
    return config


StretchedInput = Annotated[InputConfig, AfterValidator(_stretched)]
"""The input of models whose boxes are shares of the whole frame: padding would move them."""

DETR_INPUT = InputConfig(resize="short side", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What DETR, Deformable DETR and DINO see: the shorter side 800 and the longer at most 1333, by ImageNet's colours."""


def prepare(image: Bands, config: InputConfig) -> Tensor:
    """[h, w, C] uint8 -> [C, H, W] float32: resized to `config.size_of(h, w)`, scaled, normalised."""
    return normalise(resized(image, config), config)


def resized(image: Bands, config: InputConfig) -> Tensor:
    """[h, w, C] -> [C, H, W], both uint8: what is left to `as_input`, which is faster where the network is.

    InputError for another number of channels than the network takes.
    """
    require_channels(image, config.channels, "image")
    height, width = config.size_of(*image.shape[:2])

    def resize(picture: Image.Image) -> Image.Image:
        if picture.size == (width, height):
            return picture
        return picture.resize((width, height), Image.Resampling.BILINEAR)

    pixels = np.array(resize(Image.fromarray(image))) if image.shape[2] == 3 else band_by_band(image, resize)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Images [C, h, w] -> [B, C, H, W], zeros to the right of and below the smaller ones, and where they are.

    The padding is [B, H, W], True where there is no image; None where all images have one size. Boxes stay shares of
    the image itself, so nothing is to be done to them on either side of the network.
    """
    sizes = [image.shape[-2:] for image in images]
    if len(set(sizes)) == 1:
        return torch.stack(list(images)), None
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool, device=batch.device)
    for place, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        batch[place, :, :h, :w] = image
        padding[place, :h, :w] = False
    return batch, padding


def normalise(image: Tensor, config: InputConfig) -> Tensor:
    """[..., C, h, w] uint8 -> float32 in [0, 1], less the mean and over the deviation where the model has them.

    In the memory of the first result: taking more for each step costs a CPU several times what it computes.
    """
    scaled = image.to(torch.float32, copy=True).div_(255)
    if config.mean is None or config.std is None:
        return scaled
    mean, std = (torch.tensor(each).to(image.device, non_blocking=True) for each in (config.mean, config.std))
    return scaled.sub_(mean[:, None, None]).div_(std[:, None, None])


def as_input(images: Tensor, padding: Tensor | None, config: InputConfig) -> Tensor:
    """A batch of `padded` as the network takes it, on the device that it is on: the same numbers as `prepare` gives."""
    if images.dtype != torch.uint8:
        return images
    values = normalise(images, config)
    return values if padding is None else values.masked_fill_(padding.to(images.device, non_blocking=True)[:, None], 0)
