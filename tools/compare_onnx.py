"""Compare a network of ours with an ONNX file of the same weights, box by box, on pictures.

    python tools/compare_onnx.py FILE.onnx WEIGHTS IMAGES [--model deimv2-atto] [--most 128]

FILE.onnx has the inputs `images` [N, 3, h, w] and `orig_target_sizes` [N, 2] (width, height), and the outputs `labels`,
`boxes` (xyxy in pixels) and `scores`, best first: the form that the authors of RT-DETR, D-FINE and DEIM export. IMAGES
is a folder. Leaves with 1 when a detection has no counterpart or differs by more than allowed.

Such files hold the anchors as the authors' averaging of weights left them: 2e-4 away from where they are computed to
be, here and in training. That is most of what scores (1e-3) and boxes (half a pixel) differ by.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr.image import prepare
from detr.image_file import read_image
from detr.models import load_model
from detr.models.postprocess import select

NEAR_TIE = 1e-4  # scores of the last detections that make the list or don't, by chance
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Found:
    scores: Tensor  # [N]
    labels: Tensor  # [N]
    boxes: Tensor  # [N, 4] xyxy in pixels


@click.command()
@click.argument("onnx", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("weights")
@click.argument("images", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", help="Preset of the weights, where the file does not say.")
@click.option("--most", type=click.IntRange(min=1), help="Only so many pictures, the first by name.")
@click.option("--scores", default=2e-3, help="Allowed difference of scores.")
@click.option("--pixels", default=1.0, help="Allowed difference of boxes, of those scored 0.05 at least.")
def main(
    onnx: Path, weights: str, images: Path, model: str | None, most: int | None, scores: float, pixels: float
) -> None:
    """Compare WEIGHTS with the file ONNX on the pictures of the folder IMAGES."""
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    network: Any = load_model(weights, model)
    files = sorted(each for each in images.rglob("*") if each.suffix.lower() in SUFFIXES)[:most]
    worst_score = worst_box = worst_sure = 0.0
    unpaired = count = 0
    for theirs, ours in _answers(session, network, files):
        pairs, alone = paired(theirs, ours)
        differences = (theirs.scores[pairs[0]] - ours.scores[pairs[1]]).abs()
        apart = (theirs.boxes[pairs[0]] - ours.boxes[pairs[1]]).abs().amax(-1)
        sure = theirs.scores[pairs[0]] >= 0.05
        worst_score = max(worst_score, float(differences.max()))
        worst_box = max(worst_box, float(apart.max()))
        worst_sure = max(worst_sure, float(apart[sure].amax(0, keepdim=True).sum()) if sure.any() else 0.0)
        unpaired, count = unpaired + alone, count + len(theirs.scores)
    click.echo(f"{len(files)} pictures, {count} detections, {unpaired} without counterpart")
    click.echo(f"largest differences: score {worst_score:.1e}, box {worst_box:.3f} pixels, ", nl=False)
    click.echo(f"{worst_sure:.3f} of those scored 0.05 at least")
    sys.exit(bool(unpaired or worst_score > scores or worst_sure > pixels))


@torch.no_grad()
def _answers(session: Any, network: Any, files: list[Path]) -> Iterator[tuple[Found, Found]]:
    for file in files:
        picture = read_image(file)
        height, width = picture.shape[:2]
        image = prepare(picture, network.config.input)[None]
        labels, boxes, scores = session.run(
            ["labels", "boxes", "scores"],
            {"images": image.numpy(), "orig_target_sizes": np.array([[width, height]], dtype=np.int64)},
        )
        theirs = Found(*(torch.from_numpy(each[0]) for each in (scores, labels, boxes)))
        (found,) = select(network(image), [(height, width)], scoring=network.scoring, max_det=len(theirs.scores))
        yield theirs, Found(found.scores, found.labels, found.boxes)


def paired(theirs: Found, ours: Found) -> tuple[tuple[Tensor, Tensor], int]:
    """The rows that belong together, and how many of theirs are without counterpart.

    A detection may change places with another of nearly its score, and at the end of the list be left out for it.
    """
    cost = torch.cdist(theirs.boxes, ours.boxes, p=torch.inf) / theirs.boxes.abs().max()
    cost = cost + (theirs.scores[:, None] - ours.scores[None]).abs()
    cost = cost + 100.0 * (theirs.labels[:, None] != ours.labels[None])
    rows, columns = (torch.from_numpy(each) for each in linear_sum_assignment(cost.numpy()))
    same = cost[rows, columns] < 100.0
    last = min(float(theirs.scores.min()), float(ours.scores.min())) + NEAR_TIE
    alone = int((theirs.scores[rows[~same]] > last).sum())
    return (rows[same], columns[same]), alone


if __name__ == "__main__":
    main()
