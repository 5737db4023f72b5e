"""A batch as the network sees it, with its boxes: what augmentation and labels really are."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy
from detr.classes import Classes
from detr.draw import draw
from detr.files import write_bytes
from detr.image import RGB, InputConfig
from detr.records import Batch, Detections

_LARGEST_SIDE = 480  # of an image in the picture
_MOST = 16  # images


def draw_batch(batch: Batch, config: InputConfig, classes: Classes, path: Path) -> None:
    """The first images of the batch, with their padding and boxes, side by side in one file."""
    tiles = [
        _shrunk(_drawn(image, size, target.labels, target.boxes, config, classes))
        for image, size, target in zip(batch.images[:_MOST].cpu(), _sizes(batch), batch.targets[:_MOST], strict=False)
    ]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = [np.concatenate(tiles[start : start + columns], 1) for start in range(0, len(tiles), columns)]
    width = rows[0].shape[1]
    filled = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    encoded = BytesIO()
    Image.fromarray(np.concatenate(filled, 0)).save(encoded, "JPEG", quality=88)
    write_bytes(path, encoded.getvalue())


def _sizes(batch: Batch) -> list[tuple[int, int]]:
    """(height, width) of each image without its padding."""
    if batch.padding is None:
        return [(batch.images.shape[2], batch.images.shape[3])] * len(batch.images)
    return [(int(seen.any(1).sum()), int(seen.any(0).sum())) for seen in ~batch.padding.cpu()]


def _drawn(
    image: Tensor, size: tuple[int, int], labels: Tensor, boxes: Tensor, config: InputConfig, classes: Classes
) -> RGB:
    height, width = size
    corners = cxcywh_to_xyxy(boxes.cpu().float()) * torch.tensor([width, height, width, height])
    found = Detections(corners, torch.ones(len(labels)), labels.cpu())
    return draw(_as_picture(image, config), found, classes.as_dict())


def _as_picture(image: Tensor, config: InputConfig) -> RGB:
    """The way back of `image.normalise`, where it was gone."""
    if image.dtype == torch.uint8:
        return image.permute(1, 2, 0).contiguous().numpy()
    if config.mean is not None and config.std is not None:
        image = image * torch.tensor(config.std).view(3, 1, 1) + torch.tensor(config.mean).view(3, 1, 1)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _shrunk(picture: RGB) -> RGB:
    height, width = picture.shape[:2]
    factor = min(1.0, _LARGEST_SIDE / max(height, width))
    return np.asarray(Image.fromarray(picture).resize((round(width * factor), round(height * factor))))
