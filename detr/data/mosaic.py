"""Four images in one: more objects in every training image (DEIM, Huang et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from detr.bands import Bands, band_by_band
from detr.config import Config
from detr.data.sample import Sample, uniform
from detr.image import MOST_SIDE, InputConfig


class MosaicConfig(Config):
    """With `probability` an image becomes one of four, which are turned, moved and scaled together."""

    probability: float = Field(default=0.5, ge=0, le=1)
    size: float = Field(default=0.5, gt=0, le=1)  # shorter side of each of the four, as a share of the input's
    rotation: float = Field(default=10.0, ge=0, le=180)  # degrees, at most, either way
    translation: float = Field(default=0.1, ge=0, le=1)  # share of the mosaic's side, at most, each way
    scale: tuple[float, float] = (0.5, 1.5)

    @model_validator(mode="after")
    def _fits(self) -> MosaicConfig:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {list(self.scale)}: expected two numbers above 0, the smaller one first")
        return self


def part_side(config: MosaicConfig, input: InputConfig) -> int:
    """Shorter side, in pixels, of each of the four."""
    return max(1, round(config.size * min(input.frame)))


def mosaic(samples: Sequence[Sample], config: MosaicConfig, input: InputConfig) -> Sample:
    """Four samples -> one of the input's size, which bears the name of the first; draws from torch's generator.

    Each is resized to `part_side`, keeping its aspect, and put into the upper left of its quarter; the quarters are as
    large as the largest of them. Where nothing is, it's black. Boxes are those around the turned ones, cut at the edge.
    """
    assert len(samples) == 4
    parts = [_resized(sample, part_side(config, input)) for sample in samples]
    height, width = (max(part.image.shape[axis] for part in parts) for axis in (1, 2))
    canvas = np.zeros((2 * height, 2 * width, len(parts[0].image)), np.uint8)
    corners = []
    for place, part in enumerate(parts):
        top, left = place // 2 * height, place % 2 * width
        h, w = part.image.shape[1:]
        canvas[top : top + h, left : left + w] = part.image.permute(1, 2, 0).numpy()
        corners.append(part.boxes.as_subclass(Tensor) + torch.tensor([left, top, left, top]))
    boxes = tv_tensors.BoundingBoxes(torch.cat(corners), format="XYXY", canvas_size=(2 * height, 2 * width))
    image, boxes = _moved(canvas, boxes, config, input.size_of(2 * height, 2 * width))
    return replace(samples[0], image=image, boxes=boxes, labels=torch.cat([part.labels for part in parts]))


def _resized(sample: Sample, side: int) -> Sample:
    size = InputConfig(resize="short side", short=side, long=MOST_SIDE).size_of(*sample.image.shape[1:])
    return replace(sample, image=F.resize(sample.image, list(size)), boxes=F.resize(sample.boxes, list(size)))


def _moved(
    canvas: Bands, boxes: tv_tensors.BoundingBoxes, config: MosaicConfig, size: tuple[int, int]
) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes]:
    """One turn, shift and scale about the centre for the picture and its boxes; then both at `size` (height, width)."""
    height, width = canvas.shape[:2]
    far = config.translation
    how = {
        "angle": uniform(-config.rotation, config.rotation),
        "translate": [round(uniform(-far, far) * width), round(uniform(-far, far) * height)],
        "scale": uniform(*config.scale),
        "shear": [0.0, 0.0],
    }

    def move(picture: Image.Image) -> Image.Image:
        # Pillow turns a picture of bytes several times as fast as a grid of floats does.
        turned = F.affine(picture, **how)
        # At once, for there are fewer pixels to distort then.
        return turned.resize(size[::-1], Image.Resampling.BILINEAR)

    pixels = np.array(move(Image.fromarray(canvas))) if canvas.shape[2] == 3 else band_by_band(canvas, move)
    # Resizing multiplies by a rounded ratio, which may lead a little over the edge.
    seen = F.clamp_bounding_boxes(F.resize(F.affine(boxes, **how), list(size)))
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)), seen
