"""The moving picture of the `shapes` set: objects on their ways over a scene that a camera pans across."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.random import Generator
from PIL import Image

from detr.data.shapes_drawing import SHAPES, Floats, Stencil, Thing, background, cover, finish, paint, stencil, surface
from detr.image import RGB

WIDTH, HEIGHT, RATE, FRAMES = 480, 320, 25, 200

_FEWEST_VISIBLE = 0.4
_ENCODER = {"crf": "20", "x264-params": "mbtree=0"}  # macroblock trees come out differently in each run
_OBJECTS = 18
_VIDEO_STREAM = 7  # keeps the video's random numbers apart from those of the images


def moving_shapes(seed: int, *, frames: int = FRAMES) -> Iterator[tuple[RGB, list[Thing]]]:
    """The frames in order, each with what can be seen in it; a `Thing` keeps its track number throughout."""
    random = np.random.default_rng([seed, _VIDEO_STREAM])
    scene, colour = background(random, HEIGHT * 5 // 4, WIDTH * 7 // 4)
    movers = [_mover(random, scene, colour, track) for track in range(1, _OBJECTS + 1)]
    for number in range(frames):
        seconds = number / RATE
        left, top = _camera(seconds, scene)
        picture = scene[top : top + HEIGHT, left : left + WIDTH].copy()
        yield _frame(np.random.default_rng([seed, _VIDEO_STREAM, number]), picture, movers, seconds, left, top)


def write_video(path: Path, frames: Iterator[RGB]) -> None:
    """Encode frames of one even size as H.264 in `path` (mp4), for any browser."""
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options=_ENCODER)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        stream.time_base = Fraction(1, RATE)
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@dataclass(frozen=True, eq=False)
class _Mover:
    """An object that goes to and fro within the scene, turning as it goes."""

    label: int
    track: int
    size: float  # pixels
    start: tuple[float, float]  # in the scene, pixels
    speed: tuple[float, float]  # pixels per second
    angle: float
    spin: float  # radians per second
    stretch: float
    texture: Image.Image  # square, larger than the object in any position
    room: tuple[int, int]  # width and height of the scene

    def outline(self, seconds: float, left: int, top: int) -> Stencil:
        """The outline as the camera sees it."""
        x, y = (
            _to_and_fro(start + speed * seconds, end)
            for start, speed, end in zip(self.start, self.speed, self.room, strict=True)
        )
        return stencil(SHAPES[self.label], (x - left, y - top), self.size, self._angle(seconds), self.stretch)

    def surface(self, seconds: float, size: tuple[int, ...]) -> Floats:
        """[height, width, 3] the texture, which turns with the object."""
        turned = self.texture.rotate(-math.degrees(self._angle(seconds)), Image.Resampling.BILINEAR)
        top, left = (turned.height - size[0]) // 2, (turned.width - size[1]) // 2
        return np.asarray(turned.crop((left, top, left + size[1], top + size[0])), np.float32)

    def _angle(self, seconds: float) -> float:
        return self.angle + self.spin * seconds


def _mover(random: Generator, scene: Floats, colour: Floats, track: int) -> _Mover:
    height, width = scene.shape[:2]
    size = math.exp(random.uniform(math.log(36), math.log(120)))
    pace, way = random.uniform(15, 70), random.uniform(0, 2 * math.pi)
    across = math.ceil(size * 1.7)
    painted = surface(random, (across, across), away_from=colour)
    return _Mover(
        label=(track - 1) % len(SHAPES),
        track=track,
        size=size,
        start=(random.uniform(0, width), random.uniform(0, height)),
        speed=(pace * math.cos(way), pace * math.sin(way)),
        angle=random.uniform(0, 2 * math.pi),
        spin=random.uniform(-1.2, 1.2),
        stretch=random.uniform(0.85, 1.2),
        texture=Image.fromarray(np.clip(painted, 0, 255).astype(np.uint8)),
        room=(width, height),
    )


def _frame(
    random: Generator, picture: Floats, movers: list[_Mover], seconds: float, left: int, top: int
) -> tuple[RGB, list[Thing]]:
    owners = np.full(picture.shape[:2], -1, np.int16)
    drawn: list[tuple[_Mover, Stencil]] = []
    for number, mover in enumerate(movers):
        cut = mover.outline(seconds, left, top)
        if cover(owners, cut, number).any():
            paint(picture, cut, mover.surface(seconds, cut.alpha.shape), shadow=0.35)
            drawn.append((mover, cut))
    shown = np.bincount(owners.ravel() + 1, minlength=len(movers) + 1)[1:]
    things = []
    for mover, cut in drawn:
        if shown[mover.track - 1] >= _FEWEST_VISIBLE * (cut.alpha >= 128).sum():
            x1, y1, x2, y2 = cut.box
            box = max(x1, 0.0), max(y1, 0.0), min(x2, float(WIDTH)), min(y2, float(HEIGHT))
            things.append(Thing(mover.label, box, track=mover.track))
    return finish(random, picture), things


def _camera(seconds: float, scene: Floats) -> tuple[int, int]:
    """(left, top) of what the camera sees: it swings across the scene once in eight seconds."""
    room_x, room_y = scene.shape[1] - WIDTH, scene.shape[0] - HEIGHT
    left = room_x * (0.5 - 0.5 * math.cos(2 * math.pi * seconds / 8))
    top = room_y * (0.5 - 0.5 * math.cos(2 * math.pi * seconds / 5.3))
    return round(left), round(top)


def _to_and_fro(place: float, end: float) -> float:
    """A straight way from 0 to `end` and back, for ever."""
    place %= 2 * end
    return min(place, 2 * end - place)
