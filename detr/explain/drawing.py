"""Explanations as pictures: where a box's query looked, drawn over the picture at the scale it was looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw

from detr.bands import Bands, shown
from detr.draw import Colour, colour_of, draw
from detr.explain.levels import Array
from detr.explain.records import Explanation, Show
from detr.image import RGB
from detr.records import Detections

LEVEL_COLOURS: tuple[Colour, ...] = ((86, 180, 233), (255, 235, 80), (240, 110, 60), (235, 130, 200), (90, 220, 160))
"""Of the levels, fine to coarse."""

_HEAT = [(30, 20, 90), (130, 30, 130), (220, 60, 80), (252, 160, 50), (252, 250, 170)]
"""From little to much: lighter with each step, so that it is read without colours too."""

Window: TypeAlias = tuple[int, int, int, int]  # xyxy in pixels of the picture

_SMALLEST = 800  # longer side of what is drawn on, at least
_MARGIN = 12.0  # pixels of the picture around a box, at least
_LARGEST_WEIGHTS = 400  # points that are drawn, at most
_FINE = 2  # times as many pixels while points are drawn, for smooth edges
ON_A_SHEET = 12
"""Pictures on a contact sheet, at most."""
_TILE, _COLUMNS, _GAP = 520, 4, 10


@dataclass(frozen=True)
class _Sight:
    """A part of a picture, enlarged: pixels of the picture -> pixels of what is drawn."""

    left: float
    top: float
    scale: float

    def __call__(self, values: Sequence[float], *, finer: int = 1) -> list[float]:
        """x, y, x, y, ..."""
        starts = (self.left, self.top)
        return [(value - starts[number % 2]) * self.scale * finer for number, value in enumerate(values)]


def draw_explanation(
    explanation: Explanation, *, layer: int | None = None, head: int | None = None, show: Show = "both"
) -> RGB:
    """The box and what is around it: map, points, the box with its name, and dashed the box it began as.

    Points are as large as their weight, coloured by level. The cross is the position that proposed the query.
    """
    window = _around(explanation)
    picture, sight = _seen(explanation.image, window)
    if show in ("both", "map"):
        picture = heated(picture, _cut(explanation.map(layer=layer, head=head), window, picture))
    marks = Image.new("RGBA", (picture.shape[1] * _FINE, picture.shape[0] * _FINE))
    pen = ImageDraw.Draw(marks)
    if show in ("both", "points") and explanation.points is not None:
        _points(pen, explanation, layer, head, sight)
    _origin(pen, explanation, sight)
    return draw(_laid_over(picture, marks), _detections([explanation], sight), {explanation.label: explanation.name})


def draw_together(found: Sequence[Explanation], image: Bands) -> RGB:
    """The picture with what all of its detections looked at: the map of each as strong as the others."""
    whole = (0, 0, image.shape[1], image.shape[0])
    picture, sight = _seen(image, whole)
    together = np.zeros(image.shape[:2], np.float32)
    for each in found:
        map = each.map()
        together = np.maximum(together, map / max(float(map.max()), 1e-9))
    if found:
        picture = heated(picture, _cut(together, whole, picture))
    return draw(picture, _detections(found, sight), {each.label: each.name for each in found})


def contact_sheet(pictures: Sequence[RGB]) -> RGB:
    """The pictures side by side, made smaller."""
    tiles = [Image.fromarray(picture) for picture in pictures]
    for tile in tiles:
        tile.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    heights = [max(tile.height for tile in row) + _GAP for row in rows]
    sheet = Image.new("RGB", (len(rows[0]) * (_TILE + _GAP) + _GAP, sum(heights) + _GAP), (24, 26, 30))
    for number, row in enumerate(rows):
        top = sum(heights[:number]) + _GAP
        for column, tile in enumerate(row):
            left = column * (_TILE + _GAP) + _GAP
            sheet.paste(tile, (left + (_TILE - tile.width) // 2, top + (heights[number] - _GAP - tile.height) // 2))
    return np.array(sheet)


def heated(picture: RGB, map: Array) -> RGB:
    """[h, w, 3] with a map [h, w] over it; what was not looked at is dimmed, the largest is drawn full."""
    steps = np.linspace(0, 1, 256)
    colours = np.stack([np.interp(steps, np.linspace(0, 1, len(_HEAT)), each) for each in zip(*_HEAT, strict=True)], 1)
    places = np.rint((map / max(float(map.max()), 1e-9)) ** 0.6 * 255).astype(np.uint8)
    strength = (0.72 * steps)[:, None]
    over, under = (colours * strength).astype(np.float32)[places], (1 - strength).astype(np.float32)[places]
    heat = picture * np.float32(0.7)
    heat += np.float32(0.15) * picture.mean(-1, keepdims=True, dtype=np.float32)
    heat *= under
    heat += over
    return heat.astype(np.uint8)


def _points(
    pen: ImageDraw.ImageDraw, explanation: Explanation, layer: int | None, head: int | None, sight: _Sight
) -> None:
    points = explanation.points
    assert points is not None
    explanation.require(layer=layer, head=head)
    layers = slice(None) if layer is None else [layer]
    heads = slice(None) if head is None else [head]
    xy, weights = points.xy[layers][:, heads], points.weights[layers][:, heads]
    levels = np.broadcast_to(np.array(points.levels), weights.shape).reshape(-1)
    xy, weights = xy.reshape(-1, 2), weights.reshape(-1)
    largest = max(float(weights.max()), 1e-9)
    for index in np.argsort(weights, kind="stable")[-_LARGEST_WEIGHTS:].tolist():  # the largest last, on top
        x, y = sight(xy[index].tolist(), finer=_FINE)
        radius = _FINE * (1.2 + 5.5 * float(weights[index] / largest) ** 0.5)
        colour = LEVEL_COLOURS[levels[index] % len(LEVEL_COLOURS)]
        opacity = round(90 + 150 * float(weights[index] / largest))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), (*colour, opacity), (20, 20, 20, opacity), _FINE)


def _origin(pen: ImageDraw.ImageDraw, explanation: Explanation, sight: _Sight) -> None:
    """The cross where the query was proposed, and what the first layer began with."""
    white, black = (255, 255, 255, 235), (0, 0, 0, 200)
    if explanation.proposal is not None:
        x, y = sight(explanation.proposal.xy, finer=_FINE)
        for width, colour in ((5 * _FINE, black), (2 * _FINE, white)):
            arm = 8 * _FINE + width / 2
            pen.line((x - arm, y, x + arm, y), colour, width)
            pen.line((x, y - arm, x, y + arm), colour, width)
    if explanation.start is not None and len(explanation.start) == 4:
        left, top, right, bottom = sight(explanation.start, finer=_FINE)
        for side in ((left, top, right, top), (left, bottom, right, bottom)):
            _dashes(pen, *side)
        for side in ((left, top, left, bottom), (right, top, right, bottom)):
            _dashes(pen, *side)


def _dashes(pen: ImageDraw.ImageDraw, x: float, y: float, to_x: float, to_y: float) -> None:
    length = max(abs(to_x - x), abs(to_y - y), 1.0)
    dash = 6.0 * _FINE
    for start in np.arange(0, length, 2 * dash):
        near, far = start / length, min(start + dash, length) / length
        ends = (x + (to_x - x) * near, y + (to_y - y) * near, x + (to_x - x) * far, y + (to_y - y) * far)
        pen.line(ends, (255, 255, 255, 220), 2 * _FINE)


def _laid_over(picture: RGB, marks: Image.Image) -> RGB:
    under = Image.fromarray(picture).convert("RGBA")
    return np.array(Image.alpha_composite(under, marks.reduce(_FINE)).convert("RGB"))


def _around(explanation: Explanation) -> Window:
    """The box with three quarters of its size on each side, more beside a thin one, and the cross; in the picture."""
    height, width = explanation.image.shape[:2]
    left, top, right, bottom = explanation.box
    wide, high = right - left, bottom - top
    across, down = max(0.75 * wide, (high - wide) / 2, _MARGIN), max(0.75 * high, (wide - high) / 2, _MARGIN)
    ends = [left - across, right + across], [top - down, bottom + down]
    if explanation.proposal is not None:
        for axis, value in zip(ends, explanation.proposal.xy, strict=True):
            axis[:] = [min(axis[0], value - _MARGIN), max(axis[1], value + _MARGIN)]
    (left, right), (top, bottom) = ends
    low = max(0, min(int(left), width - 1)), max(0, min(int(top), height - 1))
    return (*low, max(low[0] + 1, min(math.ceil(right), width)), max(low[1] + 1, min(math.ceil(bottom), height)))


def _seen(image: Bands, window: Window) -> tuple[RGB, _Sight]:
    """A window of a picture, enlarged where it is small."""
    left, top, right, bottom = window
    part = shown(image)[top:bottom, left:right]
    scale = max(1.0, _SMALLEST / max(part.shape[:2]))
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    enlarged = np.array(Image.fromarray(part).resize(size, Image.Resampling.BICUBIC)) if scale > 1 else part
    return enlarged, _Sight(left, top, scale)


def _cut(map: Array, window: Window, picture: RGB) -> Array:
    """What a map at the picture's size shows of the window, at the size it is drawn in."""
    left, top, right, bottom = window
    part = Image.fromarray(np.ascontiguousarray(map[top:bottom, left:right]))
    return np.maximum(np.array(part.resize((picture.shape[1], picture.shape[0]), Image.Resampling.BILINEAR)), 0)


def _detections(found: Sequence[Explanation], sight: _Sight) -> Detections:
    boxes = torch.tensor([sight(each.box) for each in found], dtype=torch.float32).view(-1, 4)
    scores, labels = torch.tensor([each.score for each in found]), torch.tensor([each.label for each in found])
    return Detections(boxes, scores, labels.long())


def chip(label: int) -> str:
    """The colour of a class, as pages write it."""
    return "#" + "".join(f"{value:02x}" for value in colour_of(label))
