"""Boxes and labels on a picture, and a window to look at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from detr.bands import Bands, shown
from detr.errors import InputError, NotWritten
from detr.files import write_bytes
from detr.image import RGB
from detr.opencv import cv2
from detr.records import Detections

Colour = tuple[int, int, int]  # RGB

_OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
"""Okabe & Ito 2008, "Color Universal Design": seven colours that colour-blind people tell apart as well."""


def colour_of(label: int) -> Colour:
    """The colour of a class, or a track: always the same, and another than that of its 20 neighbours."""
    base = _OKABE_ITO[label % len(_OKABE_ITO)]
    towards, share = ((0, 0.0), (255, 0.45), (0, 0.4))[label // len(_OKABE_ITO) % 3]
    red, green, blue = (round(value + (towards - value) * share) for value in base)
    return red, green, blue


def text_colour_on(background: Colour) -> Colour:
    """Black or white, whichever stands out more (WCAG 2.2, contrast ratio): always 4.5 : 1 or more."""
    luminance = _luminance(background)
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


def draw(
    image: Bands,
    detections: Detections,
    names: Mapping[int, str] | Sequence[str],
    *,
    line_width: int | None = None,
    font_size: int | None = None,
    labels: bool = True,
    scores: bool = True,
) -> RGB:
    """A copy of `image`, or of its first bands, with a box and a label for each detection, the best on top.

    No box runs through a label. Boxes have the colour of their class, or of their track. Lines and letters grow with
    the image unless their size in pixels is given.
    """
    picture = np.ascontiguousarray(shown(image)).copy()
    height, width = picture.shape[:2]
    line_width = line_width or max(1, round((height + width) / 2 * 0.003))
    font_size = font_size or min(64, max(10, round((height + width) / 2 * 0.02)))
    boxes = detections.boxes.detach().cpu().double().numpy()
    inside = [_inside(box, width, height) for box in boxes]
    shown_by = detections.labels if detections.track_ids is None else detections.track_ids
    colours = [colour_of(int(index)) for index in shown_by]
    for (left, top, right, bottom), colour in reversed(list(zip(inside, colours, strict=True))):
        cv2.rectangle(picture, (left, top), (right, bottom), colour, line_width)
    if labels:
        texts = [_label(detections, index, names, scores) for index in range(len(detections))]
        plates = [_plate(text, colour, font_size) for text, colour in zip(texts, colours, strict=True)]
        places = _places(
            plates,
            [(left - line_width // 2, top, right, bottom) for left, top, right, bottom in inside],
            (height, width),
        )
        for plate, place in reversed(list(zip(plates, places, strict=True))):
            _put(picture, plate, place)
    return picture


def _label(detections: Detections, index: int, names: Mapping[int, str] | Sequence[str], scores: bool) -> str:
    label = int(detections.labels[index])
    track = "" if detections.track_ids is None else f"#{int(detections.track_ids[index])} "
    score = f" {float(detections.scores[index]):.2f}" if scores else ""
    return f"{track}{_legible(str(names[label]), label)}{score}"


def _inside(box: NDArray[np.float64], width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels a box covers, within the picture."""
    left, right = np.clip(np.rint(box[0::2]), 0, width - 1).astype(int)
    top, bottom = np.clip(np.rint(box[1::2]), 0, height - 1).astype(int)
    return int(left), int(top), int(right), int(bottom)


def put_label(picture: RGB, text: str, left: int, top: int, colour: Colour, font_size: int) -> None:
    """A filled plate with text, standing on the point; hanging from it where there is no room above."""
    plate = _plate(text, colour, font_size)
    _put(picture, plate, *_places([plate], [(left, top, left, top)], picture.shape[:2]))


def _places(
    plates: Sequence[RGB], boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, ...]
) -> list[tuple[int, int]]:
    """(x, y) of each plate: on its box, hanging into it or below, wherever it lies least on those before it."""
    height, width = size
    taken = np.empty((len(plates), 4), np.int64)  # x, y, x, y
    for number, (plate, (left, top, right, bottom)) in enumerate(zip(plates, boxes, strict=True)):
        high, wide = plate.shape[:2]
        rows = [y for y in (top - high, top, bottom, bottom - high) if 0 <= y <= height - high]
        columns = [max(0, min(x, width - wide)) for x in (left, right - wide)]
        tried = np.array([(x, y) for y in rows or [max(0, min(top, height - high))] for x in columns])
        ends, before = tried + np.array((wide, high)), taken[:number]
        across = np.minimum(ends[:, None], before[:, 2:]) - np.maximum(tried[:, None], before[:, :2])
        least = across.clip(0).prod(-1).sum(-1).argmin()
        taken[number] = *tried[least], *ends[least]
    return [(x, y) for x, y in taken[:, :2].tolist()]


def _plate(text: str, colour: Colour, font_size: int) -> RGB:
    mask = _written(text, font_size)
    pad = max(2, font_size // 5)
    plate = np.empty((mask.shape[0] + 2 * pad, mask.shape[1] + 2 * pad, 3), np.float32)
    plate[:] = colour
    share = mask[:, :, None].astype(np.float32) / 255
    inner = plate[pad : pad + mask.shape[0], pad : pad + mask.shape[1]]
    inner += (np.array(text_colour_on(colour), np.float32) - inner) * share
    return np.rint(plate).astype(np.uint8)


def _put(picture: RGB, plate: RGB, place: tuple[int, int]) -> None:
    """As much of it as there is room for."""
    left, top = place
    visible = picture[top : top + plate.shape[0], left : left + plate.shape[1]]
    visible[:] = plate[: visible.shape[0], : visible.shape[1]]


@lru_cache(maxsize=4096)
def _written(text: str, font_size: int) -> NDArray[np.uint8]:
    """[h, w] how much of each pixel the letters cover; all texts of one size are equally high."""
    font = _font(font_size)
    ascent, descent = font.getmetrics()
    mask, (x, y) = font.getmask2(text, mode="L", anchor="ls")
    letters = np.array(mask, dtype=np.uint8).reshape(mask.size[1], mask.size[0])
    canvas = np.zeros((ascent + descent, max(0, x) + letters.shape[1]), np.uint8)
    top = max(0, ascent + y)
    rows = min(letters.shape[0], canvas.shape[0] - top)
    canvas[top : top + rows, max(0, x) : max(0, x) + letters.shape[1]] = letters[:rows]
    return canvas


_SAVED_WITH: dict[str, dict[str, int]] = {"JPEG": {"quality": 95}, "PNG": {"compress_level": 2}}
"""PNG's usual 6 takes two to three times as long, for a sixteenth of the bytes of photographs."""

_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSans-Regular.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
    "arial.ttf",
)
"""Fonts of common systems with many scripts, widest first. Pillow's own knows Latin letters only."""


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:  # not on this system
            continue
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels come with FreeType"
    return font


@lru_cache(maxsize=4096)
def _legible(name: str, label: int) -> str:
    """The name, or `class 17` where the font lacks its letters: a row of empty boxes tells nobody anything."""
    font = _font(32)
    missing = bytes(font.getmask("\U0010fffe"))
    shown = all(character.isspace() or bytes(font.getmask(character)) != missing for character in name)
    return " ".join(name.split()) if shown else f"class {label}"


def _luminance(colour: Colour) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class Window:
    """A window on the screen. `show` says whether it is still wanted: Escape or q, or closing it, says no."""

    def __init__(self, title: str) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise InputError("there is no screen to show pictures on; leave out --show")
        self._title = title
        self._open = False

    def show(self, image: RGB, *, wait: bool = False) -> bool:
        """`wait`: until a key is pressed, as for a single picture."""
        try:
            if not self._open:
                cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
                cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
            elif cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
                return False
            self._open = True
            cv2.imshow(self._title, image[:, :, ::-1])
            return cv2.waitKey(0 if wait else 1) & 0xFF not in (27, ord("q"))
        except cv2.error as problem:
            raise InputError(f"OpenCV cannot open a window ({problem.err}); leave out --show") from None

    def close(self) -> None:
        if self._open:
            cv2.destroyWindow(self._title)


def crop(image: RGB, box: Sequence[float]) -> RGB | None:
    """What a box of xyxy pixels shows, None where nothing of it lies in the picture."""
    height, width = image.shape[:2]
    left, right = np.clip((np.floor(box[0]), np.ceil(box[2])), 0, width).astype(int)
    top, bottom = np.clip((np.floor(box[1]), np.ceil(box[3])), 0, height).astype(int)
    return image[top:bottom, left:right] if right > left and bottom > top else None


def file_safe(name: str) -> str:
    """A class name as the name of a folder: no separators, nothing hidden, never empty."""
    plain = "".join(c if c.isalnum() or c in " -_.()" else "_" for c in name).strip(" .")
    return Path(plain).name[:100] or "class"


def write_image(path: Path, image: RGB) -> None:
    """Write RGB pixels in the format the ending of `path` names; whole or not at all."""
    Image.init()
    form = Image.EXTENSION.get(path.suffix.lower())
    if form not in Image.SAVE:
        raise InputError(f"{path}: {path.suffix or 'no ending'} is no image format we can write; try .jpg or .png")
    try:
        stream = BytesIO()
        Image.fromarray(image).save(stream, format=form, **_SAVED_WITH.get(form, {}))
        write_bytes(path, stream.getvalue())
    except OSError as problem:
        raise NotWritten(f"{path}: cannot be written ({problem.strerror or problem})") from problem
