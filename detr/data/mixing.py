"""Images of one batch mixed with each other: mixup (DEIM, Huang et al. 2025) and copy-blend (DEIMv2, 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy
from detr.config import Config
from detr.data.sample import uniform, whole
from detr.records import Target

Share = tuple[float, float]


class MixUpConfig(Config):
    """With `probability` every image of a batch is blended with the one before it, and has the objects of both."""

    probability: float = Field(default=0.5, ge=0, le=1)  # of each batch
    share: Share = (0.45, 0.55)  # of an image itself, drawn for each batch; the rest is the other one's

    @model_validator(mode="after")
    def _fits(self) -> MixUpConfig:
        _require_shares("share", self.share)
        return self


class CopyBlendConfig(Config):
    """With `probability` every image of a batch gets objects of the batch, half transparent, at drawn places.

    `min_area` is of boxes as the network sees them; officially of outlines, in pixels of the file.
    """

    probability: float = Field(default=0.5, ge=0, le=1)  # of each batch that mixup has left alone
    until: Literal["flat_epoch", "stop_epoch"] = "stop_epoch"  # of AugmentConfig
    objects: int = Field(default=3, ge=1)  # for each image
    min_area: float = Field(default=100.0, ge=0)  # of their boxes, in pixels of the input
    expand: Share = (0.1, 0.25)  # how much around a box is blended in with it, as a share of its sides
    share: Share = (0.45, 0.55)  # of the image beneath

    @model_validator(mode="after")
    def _fits(self) -> CopyBlendConfig:
        _require_shares("share", self.share)
        _require_shares("expand", self.expand)
        return self


def mix(
    images: Tensor, targets: list[Target], *, mixup: MixUpConfig | None, copy_blend: CopyBlendConfig | None
) -> tuple[Tensor, list[Target]]:
    """[B, 3, h, w] of one size and their targets, mixed in one of the two ways or neither; draws from torch.

    A single image has no other to be mixed with.
    """
    if mixup is not None and len(images) > 1 and uniform(0, 1) < mixup.probability:
        return mixed_up(images, targets, share=uniform(*mixup.share))
    if copy_blend is not None and uniform(0, 1) < copy_blend.probability:
        return copy_blended(images, targets, copy_blend)
    return images, targets


def mixed_up(images: Tensor, targets: Sequence[Target], *, share: float) -> tuple[Tensor, list[Target]]:
    """Each image blended with the one before it (the first with the last): `share` of itself, and the boxes of both."""
    before = [targets[place - 1] for place in range(len(targets))]
    both = [_with(own, other.labels, other.boxes) for own, other in zip(targets, before, strict=True)]
    return torch.lerp(images.roll(1, 0), images, share), both


def copy_blended(images: Tensor, targets: Sequence[Target], config: CopyBlendConfig) -> tuple[Tensor, list[Target]]:
    """Each image with up to `config.objects` objects of the batch blended in, and their boxes added to its own."""
    share = uniform(*config.share)
    objects = _objects(images, targets, config.min_area)
    if not objects:
        return images, list(targets)
    result, answers = images.clone(), []
    height, width = images.shape[-2:]
    for place, target in enumerate(targets):
        chosen = [objects[index] for index in torch.randperm(len(objects))[: config.objects].tolist()]
        boxes = [_blend(images[each.image], result[place], each, share, uniform(*config.expand)) for each in chosen]
        corners = torch.tensor(boxes, dtype=target.boxes.dtype) / torch.tensor([width, height, width, height])
        centred = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
        answers.append(_with(target, torch.tensor([each.label for each in chosen]), centred))
    return result, answers


@dataclass(frozen=True)
class _Object:
    image: int
    label: int
    corners: tuple[int, int, int, int]  # xyxy in whole pixels


def _objects(images: Tensor, targets: Sequence[Target], min_area: float) -> list[_Object]:
    height, width = images.shape[-2:]
    found = []
    for image, target in enumerate(targets):
        corners = cxcywh_to_xyxy(target.boxes).clamp(0, 1) * torch.tensor([width, height, width, height])
        sizes = corners[:, 2:] - corners[:, :2]
        for (x1, y1, x2, y2), size, label in zip(
            corners.round().int().tolist(), sizes.prod(1), target.labels, strict=True
        ):
            if size >= min_area and x2 > x1 and y2 > y1:
                found.append(_Object(image, int(label), (x1, y1, x2, y2)))
    return found


def _blend(source: Tensor, onto: Tensor, each: _Object, share: float, expand: float) -> tuple[int, int, int, int]:
    """Blend an object, and a margin where both images have room for it, into `onto` -> its box there, in pixels."""
    height, width = onto.shape[-2:]
    x1, y1, x2, y2 = each.corners
    left, top = whole(0, width - (x2 - x1)), whole(0, height - (y2 - y1))
    right, bottom = left + x2 - x1, top + y2 - y1
    wide, high = int((x2 - x1) * expand), int((y2 - y1) * expand)
    w, n = min(wide, x1, left), min(high, y1, top)
    e, s = min(wide, width - x2, width - right), min(high, height - y2, height - bottom)
    beneath = onto[:, top - n : bottom + s, left - w : right + e]
    beneath.lerp_(source[:, y1 - n : y2 + s, x1 - w : x2 + e], 1 - share)
    return left, top, right, bottom


def _with(target: Target, labels: Tensor, boxes: Tensor) -> Target:
    return replace(target, labels=torch.cat([target.labels, labels]), boxes=torch.cat([target.boxes, boxes]))


def _require_shares(name: str, pair: Share) -> None:
    if not 0 <= pair[0] <= pair[1] <= 1:
        raise ValueError(f"{name} {list(pair)}: expected two numbers from 0 to 1, the smaller one first")
