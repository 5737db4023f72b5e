"""Pictures of boxes, side by side: a batch as the network sees it, and what was found beside what is there."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detr.bands import shown
from detr.boxes import cxcywh_to_xyxy
from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.coco import CocoDataset
from detr.draw import draw
from detr.evaluation.predictions import DetectionArrays
from detr.files import write_bytes
from detr.image import RGB, InputConfig
from detr.records import Batch, Detections

_LONGER_SIDE = 480  # of an image in the picture
_MOST = 16  # images
_SAMPLES = 8  # images of which what was found is shown
_PAIR = (380, 290)  # width and height, at most, of each picture of these
_GAP = 6


def draw_batch(batch: Batch, config: InputConfig, classes: Classes, path: Path) -> None:
    """The first images of the batch, with their padding and boxes, side by side in one file."""
    tiles = [
        _drawn(image, size, target.labels, target.boxes, config, classes)
        for image, size, target in zip(batch.images[:_MOST].cpu(), _sizes(batch), batch.targets[:_MOST], strict=False)
    ]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = [np.concatenate(tiles[start : start + columns], 1) for start in range(0, len(tiles), columns)]
    width = rows[0].shape[1]
    filled = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    encoded = BytesIO()
    Image.fromarray(np.concatenate(filled, 0)).save(encoded, "JPEG", quality=88)
    write_bytes(path, encoded.getvalue())


def draw_samples(dataset: CocoDataset, found: DetectionArrays, path: Path, *, score: float) -> None:
    """Of a few images of the set, always the same ones, the truth on the left and what was found on the right."""
    names = dataset.classes.as_dict()
    rows = []
    for index in _spread(dataset.annotations):
        sample = dataset[index]
        pixels = shown(sample.image.permute(1, 2, 0).contiguous().numpy())
        there = Detections(sample.boxes, torch.ones(len(sample.labels)), sample.labels)
        mine = np.flatnonzero((found.image_indices == index) & (found.scores >= score))
        corners = torch.from_numpy(found.boxes[mine])
        corners = torch.cat((corners[:, :2], corners[:, :2] + corners[:, 2:]), 1)
        boxes = Detections(corners, torch.from_numpy(found.scores[mine]), torch.from_numpy(found.labels[mine]))
        pair = draw(pixels, there, names, scores=False), draw(pixels, boxes, names)
        rows.append(np.concatenate([_framed(each) for each in pair], 1))
    if not rows:
        return
    rows += [np.full_like(rows[0], 255)] * (len(rows) % 2)
    pairs = [np.concatenate(rows[start : start + 2], 1) for start in range(0, len(rows), 2)]
    picture = np.concatenate([_headed(pairs[0].shape[1], f"found, score from {score:g}"), *pairs], 0)
    encoded = BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=88)
    write_bytes(path, encoded.getvalue())


def _spread(annotations: Annotations) -> list[int]:
    """Images from all over the set, of those that have boxes where there are such."""
    with_boxes = np.unique(annotations.image_indices[~annotations.crowd])
    usable = with_boxes if len(with_boxes) else np.arange(len(annotations.image_ids))
    places = np.linspace(0, len(usable) - 1, min(_SAMPLES, len(usable))).round().astype(int)
    return usable[np.unique(places)].tolist()


def _framed(picture: RGB) -> RGB:
    """Shrunk, in the middle of a white tile of always the same size."""
    height, width = picture.shape[:2]
    factor = min(_PAIR[0] / width, _PAIR[1] / height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    tile = np.full((_PAIR[1] + _GAP, _PAIR[0] + _GAP, 3), 255, np.uint8)
    top, left = (tile.shape[0] - size[1]) // 2, (tile.shape[1] - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = np.asarray(Image.fromarray(picture).resize(size))
    return tile


def _headed(width: int, right: str) -> RGB:
    """The line above the columns: what is there, and what was found."""
    strip = Image.new("RGB", (width, 24), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(14)
    column = _PAIR[0] + _GAP
    for place in range(width // column):
        text = right if place % 2 else "truth"
        pen.text((place * column + column / 2, 12), text, fill="black", font=font, anchor="mm")
    return np.asarray(strip)


def _sizes(batch: Batch) -> list[tuple[int, int]]:
    """(height, width) of each image without its padding."""
    if batch.padding is None:
        return [(batch.images.shape[2], batch.images.shape[3])] * len(batch.images)
    return [(int(seen.any(1).sum()), int(seen.any(0).sum())) for seen in ~batch.padding.cpu()]


def _drawn(
    image: Tensor, size: tuple[int, int], labels: Tensor, boxes: Tensor, config: InputConfig, classes: Classes
) -> RGB:
    picture, factor = _scaled(_as_picture(image, config))
    height, width = (side * factor for side in size)
    corners = cxcywh_to_xyxy(boxes.cpu().float()) * torch.tensor([width, height, width, height])
    found = Detections(corners, torch.ones(len(labels)), labels.cpu())
    return draw(picture, found, classes.as_dict(), scores=False)


def _as_picture(image: Tensor, config: InputConfig) -> RGB:
    """The way back of `image.normalise`, where it was gone."""
    if image.dtype == torch.uint8:
        return shown(image.permute(1, 2, 0).contiguous().numpy())
    if config.mean is not None and config.std is not None:
        image = image * torch.tensor(config.std).view(-1, 1, 1) + torch.tensor(config.mean).view(-1, 1, 1)
    return shown((image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def _scaled(picture: RGB) -> tuple[RGB, float]:
    """As large as it is shown, so that what is drawn on it can be read, and how many times as large as before."""
    height, width = picture.shape[:2]
    factor = _LONGER_SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size)), factor
