"""Where tracks came from, and the lines and zones they are counted at, on a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detr.draw import Colour, colour_of, put_label
from detr.image import RGB
from detr.opencv import cv2
from detr.tracking import Counted

_IDLE: Colour = (255, 255, 255)
_BUSY: Colour = (240, 228, 66)  # a zone with something in it
_SHADE = 0.2  # how much of a zone's colour lies on it
_FRACTION_BITS = 4  # OpenCV draws at sixteenths of a pixel


def draw_tracks(
    picture: RGB,
    trails: Mapping[int, Sequence[tuple[float, float]]],
    counts: Sequence[Counted],
    *,
    line_width: int | None = None,
    font_size: int | None = None,
) -> RGB:
    """The picture, drawn upon: the way of each track in its colour, and each line and zone with its counts."""
    if not trails and not counts:
        return picture
    height, width = picture.shape[:2]
    line_width = line_width or max(1, round((height + width) / 2 * 0.003))
    font_size = font_size or min(64, max(10, round((height + width) / 2 * 0.02)))
    for track, way in trails.items():
        if len(way) > 1:
            cv2.polylines(picture, [_fixed(way)], False, colour_of(track), line_width, cv2.LINE_AA, _FRACTION_BITS)
    for counted in counts:
        if counted.place.is_line:
            _draw_line(picture, counted, line_width, font_size)
        else:
            _draw_zone(picture, counted, line_width, font_size)
    return picture


def _draw_line(picture: RGB, counted: Counted, line_width: int, font_size: int) -> None:
    """The line, with an arrow to the side that is "in"."""
    start, end = (np.array(point) for point in counted.place.points)
    along = (end - start) / np.linalg.norm(end - start)
    tip = (start + end) / 2 + 10 * line_width * np.array([-along[1], along[0]])
    for colour, extra in (((0, 0, 0), 2), (_IDLE, 0)):
        width = line_width + extra
        cv2.polylines(picture, [_fixed([start, end])], False, colour, width, cv2.LINE_AA, _FRACTION_BITS)
        middle, to = (tuple(int(value) for value in np.rint(point)) for point in ((start + end) / 2, tip))
        cv2.arrowedLine(picture, middle, to, colour, width, cv2.LINE_AA, tipLength=0.4)
    text = f"{counted.place.name}: {sum(counted.entered.values())} in, {sum(counted.left.values())} out"
    left, top = np.rint(np.minimum(start, end)).astype(int)
    put_label(picture, text, int(left), int(top), _IDLE, font_size)


def _draw_zone(picture: RGB, counted: Counted, line_width: int, font_size: int) -> None:
    inside = sum(counted.inside.values())
    colour = _BUSY if inside else _IDLE
    border = _fixed(counted.place.points)
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(mask, [border], 1, cv2.LINE_8, _FRACTION_BITS)
    shaded = picture[mask > 0]
    picture[mask > 0] = np.rint(shaded + (np.array(colour) - shaded) * _SHADE)
    for shade, extra in (((0, 0, 0), 2), (colour, 0)):
        cv2.polylines(picture, [border], True, shade, line_width + extra, cv2.LINE_AA, _FRACTION_BITS)
    text = f"{counted.place.name}: {inside} inside, {sum(counted.seen.values())} seen"
    left, top = (int(min(values)) for values in zip(*counted.place.points, strict=True))
    put_label(picture, text, left, top, colour, font_size)


def _fixed(points: Sequence[Sequence[float]] | Sequence[np.ndarray]) -> np.ndarray:
    """[N, 2] in OpenCV's fixed-point numbers."""
    return np.rint(np.array(points, float) * 2**_FRACTION_BITS).astype(np.int32)
