"""Sizes drawn in training: for each image (DETR), or for each batch (RT-DETR and all after it)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from detr.config import Config
from detr.data.sample import Sample, whole
from detr.image import STRIDE, InputConfig


class SizesConfig(Config):
    """DETR's sizes (Carion et al. 2020, appendix A.4), for inputs that keep the aspect: one is drawn for each image.

    With probability `crop` a part of the image is cut out first, at the scale that gives its shorter side one of
    `crop_from` pixels.
    """

    sides: tuple[int, ...] = tuple(range(480, 801, 32))  # of the input's shorter side
    crop: float = Field(default=0.5, ge=0, le=1)
    crop_from: tuple[int, ...] = (400, 500, 600)
    crop_sides: tuple[int, int] = (384, 600)  # smallest and largest height and width of that part

    @model_validator(mode="after")
    def _fits(self) -> SizesConfig:
        low, high = self.crop_sides
        if not self.sides or min(self.sides) < 1 or not self.crop_from or min(self.crop_from) < 1:
            raise ValueError("sides and crop_from are lists of sides, each at least 1")
        if not 1 <= low <= high:
            raise ValueError(f"crop_sides {low}, {high}: expected the smallest side first")
        return self

    def scaled(self, factor: float) -> SizesConfig:
        """For an input `factor` times as large."""
        sides, crop_from, crop_sides = (
            tuple(max(1, round(side * factor)) for side in each)
            for each in (self.sides, self.crop_from, self.crop_sides)
        )
        return self.model_copy(update={"sides": sides, "crop_from": crop_from, "crop_sides": crop_sides})


def drawn_input(input: InputConfig, config: SizesConfig) -> InputConfig:
    """The input with one of the sides, drawn from torch's generator."""
    return input.model_copy(update={"short": config.sides[whole(0, len(config.sides) - 1)]})


def cropped(sample: Sample, config: SizesConfig) -> Sample:
    """A part of the sample, as large as if it were cut out at one of the scales; draws from torch's generator.

    The pixels stay those of the sample: the input is resized once, where the official code does it twice.
    """
    height, width = sample.image.shape[-2:]
    scale = config.crop_from[whole(0, len(config.crop_from) - 1)] / min(height, width)
    part = [_drawn_side(round(side * scale), side, config.crop_sides) for side in (height, width)]
    top, left = (whole(0, side - inner) for side, inner in zip((height, width), part, strict=True))
    boxes = F.crop(sample.boxes, top, left, *part)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1).as_subclass(Tensor)
    return replace(
        sample,
        image=F.crop(sample.image, top, left, *part),
        boxes=tv_tensors.wrap(boxes[kept], like=boxes),
        labels=sample.labels[kept],
    )


def _drawn_side(scaled: int, side: int, limits: tuple[int, int]) -> int:
    """A side of the part, in pixels of the sample, whose own side is `side` and would be `scaled` at the scale."""
    low, high = min(limits[0], scaled), min(limits[1], scaled)
    return max(1, round(whole(low, high) * side / scaled))


def spread_sides(input: InputConfig, own: int) -> tuple[int, ...]:
    """Sides around that of the input: 3/4 to 5/4 of it in steps of 32, its own `own` times (D-FINE's lists).

    From 640 with own = 3: 480 to 608, 640 three times, 672 to 800, as in RT-DETR.
    """
    side = max(input.height, input.width)
    low, high = int(side * 0.75 / STRIDE) * STRIDE, int(side * 1.25 / STRIDE) * STRIDE
    steps = (side - low) // STRIDE
    below = [max(STRIDE, low + step * STRIDE) for step in range(steps)]
    above = [high - step * STRIDE for step in reversed(range(steps))]
    return (*below, *[side] * own, *above)
