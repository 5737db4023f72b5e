"""The images with most errors, drawn: what was found, what was said and isn't so, what was missed."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from detr.bands import shown
from detr.data.coco import CocoDataset
from detr.diagnose.diagnosis import Diagnosis
from detr.diagnose.tide import CAUSES
from detr.draw import draw
from detr.image import RGB
from detr.records import Detections

_MOST = 20
_SIDE = 1000  # of a picture
_COLOURS = 21  # of `draw`, which then repeat: a label of 21 more has the same
RIGHT, FALSE, MISSED = 6, 4, 3  # blue, vermilion, yellow: apart for colour-blind people too; each error also has words


def worst_pictures(diagnosis: Diagnosis, dataset: CocoDataset) -> list[tuple[bytes, str]]:
    """(JPEG, caption) of the worst images, the worst first."""
    names = diagnosis.annotations.file_names
    return [
        (_drawn(diagnosis, dataset, image), f"{names[image]}: {false} false, {missed} missed")
        for image, false, missed in diagnosis.worst_images(_MOST)
    ]


def _drawn(diagnosis: Diagnosis, dataset: CocoDataset, image: int) -> bytes:
    seen, annotations = diagnosis.outcomes, diagnosis.annotations
    pixels = shown(dataset[image].image.permute(1, 2, 0).contiguous().numpy())
    height, width = pixels.shape[:2]
    factor = _SIDE / max(height, width)
    pixels = np.asarray(Image.fromarray(pixels).resize((round(width * factor), round(height * factor))))
    here = diagnosis.shown & (seen.images == image)
    right, false = np.flatnonzero(here & seen.right), np.flatnonzero(here & ~seen.right)
    missed = diagnosis.missed[annotations.image_indices[diagnosis.missed] == image]
    names = annotations.classes.names
    said = [
        f"{_cause(diagnosis, detection)} {names[seen.labels[detection]]} {seen.scores[detection]:.2f}"
        for detection in false.tolist()
    ]
    picture = _boxed(pixels, seen.boxes[right] * factor, RIGHT)
    picture = _boxed(
        picture, annotations.boxes[missed] * factor, MISSED, [names[annotations.labels[k]] for k in missed]
    )
    picture = _boxed(picture, seen.boxes[false] * factor, FALSE, said)
    encoded = BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=82)
    return encoded.getvalue()


def _cause(diagnosis: Diagnosis, detection: int) -> str:
    return CAUSES[diagnosis.causes.cause[detection]]


def _boxed(picture: RGB, boxes: NDArray[np.float64], colour: int, words: Sequence[str] = ()) -> RGB:
    """Boxes xywh of one colour, with words where there are such."""
    corners = torch.from_numpy(np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1))
    labels = colour + _COLOURS * torch.arange(len(boxes))
    named = dict(zip(labels.tolist(), words, strict=True)) if words else {}
    found = Detections(corners, torch.ones(len(boxes)), labels)
    return draw(picture, found, named, labels=bool(words), scores=False, font_size=14, line_width=2)
