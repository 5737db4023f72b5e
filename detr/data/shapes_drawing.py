"""How the generated pictures are drawn: outlines of ten shapes, textures, cluttered backgrounds."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Floats = NDArray[np.floating]  # float32 throughout, for speed

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "hexagon", "heart", "arrow", "moon")

_FINER = 4  # edges are drawn this much finer than pixels
_TEXTURES = ("plain", "stripes", "dots", "checks", "noise", "gradient")
_LETTERS = "ABEFGKMNPQRSWZ234579?&%"  # none that is one of the shapes


@dataclass(frozen=True)
class Thing:
    """One annotated object, or a group of them (crowd)."""

    label: int
    box: tuple[float, float, float, float]  # xyxy in pixels, within the image
    crowd: bool = False
    track: int | None = None


@dataclass(frozen=True, eq=False)
class Stencil:
    """A drawn outline: how much of each pixel it covers, where it lies, and the box around it."""

    alpha: NDArray[np.uint8]  # [h, w]
    left: int  # of the array, in the picture's pixels; may lie outside of it
    top: int
    box: tuple[float, float, float, float]  # xyxy of the whole outline, exact to a quarter of a pixel


def stencil(shape: str, centre: tuple[float, float], size: float, angle: float, stretch: float = 1.0) -> Stencil:
    """The outline of `shape` turned by `angle` (radians); `size` is about its longer side in pixels."""
    solid, hole = _OUTLINES[shape]
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]]) * (size / 2)
    scale = np.array([math.sqrt(stretch), 1 / math.sqrt(stretch)])
    points = (solid * scale) @ turn + centre
    left, top = (int(v) for v in np.floor(points.min(0)) - 1)
    width, height = (int(v) for v in np.ceil(points.max(0)) + 2 - (left, top))
    canvas = Image.new("L", (width * _FINER, height * _FINER))
    pen = ImageDraw.Draw(canvas)
    pen.polygon(_pairs((points - (left, top)) * _FINER), fill=255)
    if hole is not None:
        pen.polygon(_pairs(((hole * scale) @ turn + centre - (left, top)) * _FINER), fill=0)
    bounds = canvas.getbbox()
    assert bounds is not None, f"{shape} of {size} pixels left no trace"
    x1, y1, x2, y2 = (bound / _FINER for bound in bounds)
    return Stencil(np.asarray(canvas.reduce(_FINER)), left, top, (left + x1, top + y1, left + x2, top + y2))


def paint(picture: Floats, stencil: Stencil, surface: Floats, *, shadow: float = 0.0) -> None:
    """Lay `surface` [h, w, 3] over the picture [H, W, 3] through the stencil; what falls outside is lost."""
    if shadow:
        blurred = np.asarray(Image.fromarray(stencil.alpha).filter(ImageFilter.BoxBlur(2)))
        under, cut = _overlap(picture, Stencil(blurred, stencil.left + 3, stencil.top + 3, stencil.box))
        under *= 1 - blurred[cut][..., None].astype(np.float32) * (shadow / 255)
    under, cut = _overlap(picture, stencil)
    alpha = stencil.alpha[cut][..., None].astype(np.float32) / 255
    under += (surface[cut] - under) * alpha


def _overlap(picture: NDArray[np.generic], stencil: Stencil) -> tuple[NDArray, tuple[slice, slice]]:
    """The part of the picture that the stencil lies on (a view), and which part of the stencil that is."""
    height, width = stencil.alpha.shape
    y1, x1 = max(stencil.top, 0), max(stencil.left, 0)
    y2, x2 = min(stencil.top + height, picture.shape[0]), min(stencil.left + width, picture.shape[1])
    y2, x2 = max(y1, y2), max(x1, x2)
    cut = slice(y1 - stencil.top, y2 - stencil.top), slice(x1 - stencil.left, x2 - stencil.left)
    return picture[y1:y2, x1:x2], cut


def cover(owners: NDArray[np.int16], stencil: Stencil, number: int | None = None) -> NDArray[np.int64]:
    """How many pixels of each owner [H, W] (-1: nobody) lie under the stencil, at index owner + 1.

    With a `number`, these pixels become its own.
    """
    under, cut = _overlap(owners, stencil)
    inside = stencil.alpha[cut] >= 128
    counts = np.bincount(under[inside].astype(np.int64) + 1, minlength=1)
    if number is not None:
        under[inside] = number
    return counts


def surface(random: Generator, size: tuple[int, ...], *, away_from: Floats) -> Floats:
    """[height, width, 3] a texture of two colours, both unlike `away_from` [3]; `size` is (height, width)."""
    height, width = size
    first, second = _colour(random, away_from, 130), _colour(random, away_from, 80)
    kind = random.choice(
        ["plain", "stripes", "dots", "checks", "noise", "gradient"], p=[0.2, 0.2, 0.15, 0.1, 0.15, 0.2]
    )
    along, across = _turned_grid(random, height, width)
    period = random.uniform(5, 14)
    if kind == "plain":
        mix = np.zeros((height, width), np.float32)
    elif kind == "stripes":
        mix = _soft_step(np.sin(along * (2 * math.pi / period)))
    elif kind == "dots":
        mix = _soft_step(np.cos(along * (2 * math.pi / period)) + np.cos(across * (2 * math.pi / period)) - 0.7)
    elif kind == "checks":
        mix = _soft_step(3 * np.sin(along * (math.pi / period)) * np.sin(across * (math.pi / period)))
    elif kind == "noise":
        mix = _clouds(random, height, width, max(2, round(max(height, width) / 6)))
    else:
        mix = along / (np.ptp(along) + 1) + 0.5
    light = 1 + across / (max(height, width) + 1) * random.uniform(-0.5, 0.5)
    return (first + (second - first) * mix[..., None]) * light[..., None]


def background(random: Generator, height: int, width: int) -> tuple[Floats, Floats]:
    """A cluttered scene without any of the shapes [height, width, 3], and its mean colour [3]."""
    base = _any_colour(random) * random.uniform(0.5, 0.95)
    other = base + random.uniform(-60, 60, 3).astype(np.float32)
    mix = _clouds(random, height, width, int(random.integers(3, 9)))[..., None]
    scene = base + (other - base) * mix
    if random.random() < 0.5:
        along, _ = _turned_grid(random, height, width)
        ripple = np.sin(along * (2 * math.pi / random.uniform(6, 40))) * random.uniform(4, 18)
        scene += ripple[..., None]
    else:
        scene += (_clouds(random, height, width, 60)[..., None] - 0.5) * random.uniform(10, 50)
    _clutter(random, scene, base, int(random.integers(4, 12) * height * width / 320**2) + 1)
    return scene, scene.mean((0, 1))


def finish(random: Generator, picture: Floats) -> NDArray[np.uint8]:
    """The picture with a camera's noise, as uint8."""
    grain = random.standard_normal(picture.shape[:2], dtype=np.float32)[..., None] * random.uniform(1, 7)
    return np.clip(picture + grain + 0.5, 0, 255).astype(np.uint8)


def _clutter(random: Generator, scene: Floats, base: Floats, count: int) -> None:
    """Distractors: lines, curves, blobs and letters, fainter than the shapes."""
    height, width = scene.shape[:2]
    layer = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(layer)
    for _ in range(count):
        red, green, blue = np.clip(base + random.uniform(-75, 75, 3), 0, 255).astype(int).tolist()
        fill = (red, green, blue, int(random.integers(120, 220)))
        x, y = random.uniform(0, width), random.uniform(0, height)
        kind = random.random()
        if kind < 0.3:
            steps = random.normal(0, 0.35 * min(height, width), (3, 2)).cumsum(0) + np.array([x, y])
            pen.line(
                _pairs(np.vstack([[x, y], steps[: random.integers(1, 4)]])), fill=fill, width=int(random.integers(1, 4))
            )
        elif kind < 0.65:
            turns = np.linspace(0, 2 * math.pi, 24, endpoint=False)
            wobble = 1 + 0.25 * np.sin(turns * random.integers(2, 4) + random.uniform(0, 6))
            wobble = wobble + 0.15 * np.sin(turns * random.integers(3, 6) + random.uniform(0, 6))
            radii = random.uniform(6, 45, 2) * wobble[:, None]
            pen.polygon(_pairs(np.stack([np.cos(turns), np.sin(turns)], 1) * radii + (x, y)), fill=fill)
        else:
            font = ImageFont.load_default(float(random.integers(14, 60)))
            pen.text((x, y), str(random.choice(list(_LETTERS))), fill=fill, font=font, anchor="mm")
    painted = np.asarray(layer, np.float32)
    scene += (painted[..., :3] - scene) * (painted[..., 3:] / 255)


def _turned_grid(random: Generator, height: int, width: int) -> tuple[Floats, Floats]:
    angle = random.uniform(0, 2 * math.pi)
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2 + random.uniform(0, 10)
    x = np.arange(width, dtype=np.float32)[None] - width / 2 + random.uniform(0, 10)
    along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    across = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    return along.astype(np.float32), across.astype(np.float32)


def _clouds(random: Generator, height: int, width: int, cells: int) -> Floats:
    """[height, width] smooth noise in [0, 1], about `cells` humps along the longer side."""
    longer = max(height, width)
    rows, columns = max(2, math.ceil(cells * height / longer)), max(2, math.ceil(cells * width / longer))
    coarse = Image.fromarray(random.random((rows, columns), dtype=np.float32))
    return np.clip(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)


def _soft_step(wave: Floats) -> Floats:
    return np.clip(wave * 2 + 0.5, 0, 1)


def _any_colour(random: Generator) -> Floats:
    hue, saturation, value = random.random(), random.uniform(0.15, 1), random.uniform(0.25, 1)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32) * 255


def _colour(random: Generator, away_from: Floats, distance: float) -> Floats:
    """A colour at least `distance` away, or the farthest of a few."""
    tries = np.stack([_any_colour(random) for _ in range(8)])
    gaps = np.linalg.norm(tries - away_from, axis=1)
    enough = np.flatnonzero(gaps >= distance)
    return tries[enough[0] if len(enough) else gaps.argmax()]


def _pairs(points: NDArray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points.tolist()]


def _round(radius: float = 1.0, centre: tuple[float, float] = (0, 0), corners: int = 72) -> NDArray[np.float64]:
    turns = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(turns), np.sin(turns)], 1) * radius + centre


def _star() -> NDArray[np.float64]:
    points = _round(corners=10)
    points[1::2] *= 0.42
    return points


def _heart() -> NDArray[np.float64]:
    t = np.arange(72) * (2 * math.pi / 72)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2.5], 1) / 16


def _cross() -> NDArray[np.float64]:
    a = 0.32
    return np.array(
        [[-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a], [a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]]
    )


def _arrow() -> NDArray[np.float64]:
    return np.array([[-1, -0.26], [0.05, -0.26], [0.05, -0.75], [1, 0], [0.05, 0.75], [0.05, 0.26], [-1, 0.26]])


_OUTLINES: dict[str, tuple[NDArray[np.float64], NDArray[np.float64] | None]] = {
    "circle": (_round(), None),
    "square": (_round(1.25, corners=4), None),
    "triangle": (_round(1.15, corners=3), None),
    "star": (_star() * 1.1, None),
    "ring": (_round(), _round(0.55)),
    "cross": (_cross(), None),
    "hexagon": (_round(1.05, corners=6), None),
    "heart": (_heart(), None),
    "arrow": (_arrow(), None),
    "moon": (_round(), _round(0.82, (0.48, 0))),
}
