"""Explanations as pictures: where a box's query looked, drawn over the picture at the scale it was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw

from detr.draw import Colour, colour_of, draw
from detr.explain.levels import Array
from detr.explain.records import Explanation
from detr.image import RGB
from detr.records import Detections

Show = Literal["both", "map", "points"]

LEVEL_COLOURS: tuple[Colour, ...] = ((86, 180, 233), (255, 235, 80), (240, 110, 60), (235, 130, 200), (90, 220, 160))
"""Of the levels, fine to coarse."""

_HEAT = np.array([(30, 20, 90), (130, 30, 130), (220, 60, 80), (252, 160, 50), (252, 250, 170)], np.float32)
"""From little to much: lighter with each step, so that it is read without colours too."""

_SMALLEST = 900  # longer side of what is drawn on; smaller pictures are enlarged by whole numbers
_LARGEST_WEIGHTS = 400  # points that are drawn, at most
_FINE = 2  # times as many pixels while points are drawn, for smooth edges
_TILE, _COLUMNS, _TILES, _GAP = 560, 3, 12, 8


def draw_explanation(
    explanation: Explanation, *, layer: int | None = None, head: int | None = None, show: Show = "both"
) -> RGB:
    """The picture, enlarged where it is small: map, points, and box with its name; dashed the box it began as.

    Points are as large as their weight, coloured by level. The cross is the position that proposed the query.
    """
    picture, scale = _enlarged(explanation.image)
    if show in ("both", "map"):
        picture = heated(picture, explanation.map(layer=layer, head=head, size=picture.shape[:2]))
    layer_of_marks = Image.new("RGBA", (picture.shape[1] * _FINE, picture.shape[0] * _FINE))
    pen = ImageDraw.Draw(layer_of_marks)
    if show in ("both", "points") and explanation.points is not None:
        _points(pen, explanation, layer, head, scale * _FINE)
    _origin(pen, explanation, scale * _FINE)
    picture = _laid_over(picture, layer_of_marks)
    return draw(picture, _detections([explanation], scale), {explanation.label: explanation.name})


def draw_together(found: Sequence[Explanation], image: RGB) -> RGB:
    """The picture with what all of its detections looked at: the map of each as strong as the others."""
    picture, scale = _enlarged(image)
    size = (picture.shape[0], picture.shape[1])
    maps = [each.map(size=size) for each in found]
    if maps:
        picture = heated(picture, np.max([each / max(float(each.max()), 1e-9) for each in maps], 0))
    return draw(picture, _detections(found, scale), {each.label: each.name for each in found})


def contact_sheet(found: Sequence[Explanation], image: RGB, **how: int | None) -> RGB:
    """All of them together, then each by itself, the best first; at most a dozen pictures."""
    pictures = [draw_together(found, image), *(draw_explanation(each, **how) for each in found[: _TILES - 1])]
    height, width = image.shape[:2]
    factor = _TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    tiles = [np.asarray(Image.fromarray(each).resize(size, Image.Resampling.LANCZOS)) for each in pictures]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    across, down = size[0] + _GAP, size[1] + _GAP
    sheet = np.full((rows * down + _GAP, columns * across + _GAP, 3), 250, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * down + _GAP, number % columns * across + _GAP
        sheet[top : top + size[1], left : left + size[0]] = tile
    return sheet


def heated(picture: RGB, map: Array) -> RGB:
    """[h, w, 3] with a map [h, w] over it; what was not looked at is dimmed, the largest is drawn full."""
    strength = (map / max(float(map.max()), 1e-9)) ** 0.6
    places = strength * (len(_HEAT) - 1)
    low = np.minimum(places.astype(np.int64), len(_HEAT) - 2)
    colours = _HEAT[low] + (_HEAT[low + 1] - _HEAT[low]) * (places - low)[..., None]
    share = 0.72 * strength[..., None]
    grey = picture.astype(np.float32)
    dimmed = 0.7 * grey + 0.15 * grey.mean(-1, keepdims=True)
    return np.clip(dimmed * (1 - share) + colours * share, 0, 255).astype(np.uint8)


def _points(
    pen: ImageDraw.ImageDraw, explanation: Explanation, layer: int | None, head: int | None, scale: float
) -> None:
    points = explanation.points
    assert points is not None
    explanation.require(layer=layer, head=head)
    layers = slice(None) if layer is None else [layer]
    heads = slice(None) if head is None else [head]
    xy, weights = points.xy[layers][:, heads], points.weights[layers][:, heads]
    levels = np.broadcast_to(np.array(points.levels), weights.shape).reshape(-1)
    xy, weights = xy.reshape(-1, 2) * scale, weights.reshape(-1)
    largest = max(float(weights.max()), 1e-9)
    order = np.argsort(weights, kind="stable")[-_LARGEST_WEIGHTS:].tolist()
    for index in order:  # the largest last, on top
        x, y = xy[index].tolist()
        radius = _FINE * (1.2 + 5.5 * float(weights[index] / largest) ** 0.5)
        colour = LEVEL_COLOURS[levels[index] % len(LEVEL_COLOURS)]
        opacity = round(90 + 150 * float(weights[index] / largest))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), (*colour, opacity), (20, 20, 20, opacity), _FINE)


def _origin(pen: ImageDraw.ImageDraw, explanation: Explanation, scale: float) -> None:
    """The cross where the query was proposed, and what the first layer began with."""
    white, black = (255, 255, 255, 235), (0, 0, 0, 200)
    if explanation.proposal is not None:
        x, y = (each * scale for each in explanation.proposal.xy)
        for width, colour in ((5 * _FINE, black), (2 * _FINE, white)):
            arm = 8 * _FINE + width / 2
            pen.line((x - arm, y, x + arm, y), colour, width)
            pen.line((x, y - arm, x, y + arm), colour, width)
    if explanation.start is not None and len(explanation.start) == 4:
        left, top, right, bottom = (each * scale for each in explanation.start)
        for ends in ((left, top, right, top), (right, top, right, bottom), (right, bottom, left, bottom),
                     (left, bottom, left, top)):  # fmt: skip
            _dashes(pen, *ends)


def _dashes(pen: ImageDraw.ImageDraw, x: float, y: float, to_x: float, to_y: float) -> None:
    length = max(abs(to_x - x), abs(to_y - y), 1.0)
    dash = 6.0 * _FINE
    for start in np.arange(0, length, 2 * dash):
        near, far = start / length, min(start + dash, length) / length
        ends = (x + (to_x - x) * near, y + (to_y - y) * near, x + (to_x - x) * far, y + (to_y - y) * far)
        pen.line(ends, (255, 255, 255, 220), 2 * _FINE)


def _laid_over(picture: RGB, marks: Image.Image) -> RGB:
    small = marks.resize((picture.shape[1], picture.shape[0]), Image.Resampling.LANCZOS)
    under = Image.fromarray(picture).convert("RGBA")
    return np.array(Image.alpha_composite(under, small).convert("RGB"))


def _enlarged(image: RGB) -> tuple[RGB, float]:
    factor = max(1, round(_SMALLEST / max(image.shape[:2])))
    if factor == 1:
        return image, 1.0
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), float(factor)


def _detections(found: Sequence[Explanation], scale: float) -> Detections:
    boxes = torch.tensor([each.box for each in found], dtype=torch.float32).view(-1, 4) * scale
    scores, labels = torch.tensor([each.score for each in found]), torch.tensor([each.label for each in found])
    return Detections(boxes, scores, labels.long())


def chip(label: int) -> str:
    """The colour of a class, as pages write it."""
    return "#" + "".join(f"{value:02x}" for value in colour_of(label))
