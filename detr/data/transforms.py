"""Augmentation: a sample in, a sample out. Every draw is a pure function of (seed, epoch, sample index)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from detr.boxes import iou, xyxy_to_cxcywh
from detr.config import Config
from detr.data.mixing import CopyBlendConfig, MixUpConfig
from detr.data.mosaic import MosaicConfig
from detr.data.sample import Sample, drawing_from, uniform
from detr.data.sizes import SizesConfig, cropped
from detr.image import InputConfig, resized
from detr.records import Target


class AugmentConfig(Config):
    """What happens to a training image before it becomes the network's input; a probability of 0 is off.

    The defaults are RT-DETR's recipe. DEIM adds `mosaic`, `mixup` and the three epochs, DEIMv2 `copy_blend`; DETR has
    `flip` and `sizes` alone. Epochs count from 0.
    """

    distort: float = Field(default=0.5, ge=0, le=1)  # brightness, contrast and, of RGB, saturation, hue: each by odds
    zoom_out: float = Field(default=0.5, ge=0, le=1)  # into a canvas up to four times as wide and high
    zoom_fill: int = Field(default=0, ge=0, le=255)  # grey of the canvas
    iou_crop: float = Field(
        default=0.8, ge=0, le=1
    )  # to a part that keeps a drawn overlap with some box (SSD, section 2.2)
    flip: float = Field(default=0.5, ge=0, le=1)  # left to right
    min_size: float = Field(default=1.0, ge=0)  # boxes that end up smaller than this many pixels are left out
    sizes: SizesConfig | None = None  # drawn for each image; for inputs that keep the aspect
    mosaic: MosaicConfig | None = None  # four images in one; such are neither zoomed out nor cropped
    mixup: MixUpConfig | None = None  # pairs of images blended
    copy_blend: CopyBlendConfig | None = None  # objects of other images blended in
    start_epoch: int = Field(default=0, ge=0)  # before it only flips
    flat_epoch: int | None = Field(default=None, ge=0)  # from it on neither mosaic nor mixup; none: until stop_epoch
    stop_epoch: int | None = Field(default=None, ge=0)  # from this epoch on only flips, and one size; none: never

    def unfit_for(self, input: InputConfig) -> str | None:
        """What can't be done to images of such inputs; None where all can."""
        if self.sizes is not None and not input.keeps_aspect:
            return "sizes are for inputs that keep the aspect (model.input.resize=short side); null leaves them out"
        for name in ("mixup", "copy_blend"):
            if getattr(self, name) is not None and input.keeps_aspect:
                return f"{name} needs images of one size (model.input.resize=stretch); this input keeps the aspect"
        return None

    def is_strong(self, epoch: int) -> bool:
        """Whether the epoch has more than flips."""
        return self.start_epoch <= epoch and self.draws_scales(epoch)

    def is_dense(self, epoch: int) -> bool:
        """Whether the epoch has mosaics and mixup."""
        return self.is_strong(epoch) and (self.flat_epoch is None or epoch < self.flat_epoch)

    def draws_scales(self, epoch: int) -> bool:
        """Whether the batches of the epoch differ in size, if they ever do."""
        return self.stop_epoch is None or epoch < self.stop_epoch

    def blends_copies(self, epoch: int) -> bool:
        """Whether the epoch has copy-blend, if any has."""
        is_short = self.copy_blend is not None and self.copy_blend.until == "flat_epoch"
        return self.is_dense(epoch) if is_short else self.is_strong(epoch)


def augment(
    sample: Sample, config: AugmentConfig, *, seed: int, epoch: int, index: int, is_mosaic: bool = False
) -> Sample:
    """The sample as epoch `epoch` sees it. Torch's own random numbers go on afterwards as if nothing had been drawn."""
    strong = config.is_strong(epoch)
    with drawing_from(seed, epoch, index):
        image, boxes, labels = sample.image, sample.boxes, sample.labels
        for transform in _transforms(config, strong, is_mosaic, len(image)):
            # Without a box no crop can overlap one: the search would only end by a lucky draw.
            if len(boxes) or not _crops(transform):
                image, boxes, labels = transform(image, boxes, labels)
        boxes, kept = _kept(boxes, config.min_size)
        seen = replace(sample, image=image, boxes=boxes, labels=labels[kept])
        if strong and config.sizes is not None and uniform(0, 1) < config.sizes.crop:
            seen = cropped(seen, config.sizes)
        return seen


def to_network(sample: Sample, config: InputConfig, *, min_size: float = 0.0) -> tuple[Tensor, Target]:
    """The image [3, h, w] uint8, resized as in prediction, and its target.

    Boxes smaller than `min_size` pixels of the input are left out.
    """
    height, width = sample.image.shape[-2:]
    image = resized(sample.image.permute(1, 2, 0).contiguous().numpy(), config)
    corners = (sample.boxes.as_subclass(Tensor) / torch.tensor([width, height, width, height])).clamp(0, 1)
    boxes = xyxy_to_cxcywh(corners)
    pixels = boxes[:, 2:] * torch.tensor([image.shape[2], image.shape[1]])
    kept = (pixels >= min_size).all(1) & (pixels > 0).all(1)
    return image, Target(sample.labels[kept], boxes[kept], sample.image_id, sample.size)


@cache
def _transforms(config: AugmentConfig, strong: bool, is_mosaic: bool, channels: int) -> tuple[v2.Transform, ...]:
    chain: list[v2.Transform] = []
    if strong and config.distort:
        chain.append((v2.RandomPhotometricDistort if channels == 3 else _Light)(p=config.distort))
    if strong and config.zoom_out and not is_mosaic:
        chain.append(v2.RandomZoomOut(fill=config.zoom_fill, p=config.zoom_out))
    if strong and config.iou_crop and not is_mosaic:
        chain.append(_CropAndForget(config.iou_crop))
    if config.flip:
        chain.append(v2.RandomHorizontalFlip(config.flip))
    return tuple(chain)


class _Light(v2.Transform):
    """Brightness and contrast as `RandomPhotometricDistort` changes them, of images whose channels are no colours."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(
        self, image: tv_tensors.Image, boxes: tv_tensors.BoundingBoxes, labels: Tensor
    ) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes, Tensor]:
        values = image.as_subclass(Tensor).to(torch.float32)
        if uniform(0, 1) < self.p:
            values = values * uniform(0.875, 1.125)
        if uniform(0, 1) < self.p:
            values = torch.lerp(values.mean((1, 2), keepdim=True), values, uniform(0.5, 1.5))
        return tv_tensors.Image(values.round().clamp(0, 255).to(torch.uint8)), boxes, labels


def _crops(transform: v2.Transform) -> bool:
    return isinstance(transform, _CropAndForget)


class _CropAndForget(v2.Transform):
    """A random IoU crop, and the boxes that it emptied left out."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.crop = v2.RandomApply([_IoUCrop()], p=probability)

    def forward(
        self, image: tv_tensors.Image, boxes: tv_tensors.BoundingBoxes, labels: Tensor
    ) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes, Tensor]:
        image, boxes = self.crop(image, boxes)
        boxes, kept = _kept(boxes, 0.0)
        return image, boxes, labels[kept]


class _IoUCrop(v2.RandomIoUCrop):
    """torchvision's crop with all trials of a round looked at together: the same odds, ten times as fast."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        boxes = next(one for one in flat_inputs if isinstance(one, tv_tensors.BoundingBoxes))
        height, width = boxes.canvas_size
        corners = boxes.as_subclass(Tensor)
        centres = (corners[:, None, :2] + corners[:, None, 2:]) / 2  # [N, 1, 2]
        while True:
            overlap = self.options[int(torch.randint(len(self.options), ()))]
            if overlap >= 1:
                return {}
            share, place = torch.rand(2, self.trials, 2).unbind()
            sizes = (
                torch.tensor([width, height]) * (self.min_scale + (self.max_scale - self.min_scale) * share)
            ).floor()
            starts = ((torch.tensor([width, height]) - sizes) * place).floor()
            crops = torch.cat([starts, starts + sizes], 1)  # [T, 4] xyxy
            aspects = sizes[:, 0] / sizes[:, 1].clamp(min=1)
            fair = (sizes >= 1).all(1) & (aspects >= self.min_aspect_ratio) & (aspects <= self.max_aspect_ratio)
            within = ((crops[:, :2] < centres) & (centres < crops[:, 2:])).all(-1)  # [N, T]
            overlaps = torch.where(within, iou(corners[:, None], crops[None])[0], -1.0)
            found = torch.nonzero(fair & (overlaps.amax(0) >= overlap))
            if len(found):
                first = int(found[0])
                left, top, right, bottom = (int(edge) for edge in crops[first])
                return {
                    "top": top,
                    "left": left,
                    "height": bottom - top,
                    "width": right - left,
                    "is_within_crop_area": within[:, first],
                }


def _kept(boxes: tv_tensors.BoundingBoxes, min_size: float) -> tuple[tv_tensors.BoundingBoxes, Tensor]:
    """The boxes of at least `min_size` pixels and more than nothing, and which they are."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    kept = ((sizes >= min_size) & (sizes > 0)).all(1).as_subclass(Tensor)
    return tv_tensors.wrap(boxes[kept], like=boxes), kept
