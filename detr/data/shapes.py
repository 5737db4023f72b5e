"""`shapes`: a detection set made by the toolkit itself, the same for everyone, small enough for a laptop.

Ten classes of textured, turned and overlapping shapes on cluttered scenes; some small, some groups marked as crowd,
some images with nothing in them, sizes not all equal. Each image is a pure function of (seed, split, index).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

from detr.data import Progress
from detr.data.shapes_drawing import SHAPES, Floats, Thing, background, cover, finish, paint, stencil, surface
from detr.data.shapes_video import FRAMES, HEIGHT, RATE, WIDTH, moving_shapes, write_video
from detr.errors import UsageError
from detr.files import require_writable, write_bytes, write_text, written_aside
from detr.image import MOST_SIDE, RGB

SPLITS = ("train", "val")
CATEGORIES = [{"id": index + 1, "name": name, "supercategory": "shape"} for index, name in enumerate(SHAPES)]
FEWEST_VISIBLE = 0.5  # of an object's pixels; nothing that is annotated is hidden more than that

_UNFINISHED = ".unfinished"


def make_shapes(
    out: str | Path,
    *,
    images: int = 2000,
    val_images: int = 500,
    size: int = 320,
    seed: int = 0,
    video: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the set to the folder `out` and return it.

    `out/annotations/instances_{train,val}.json`, `out/images/{train,val}/000000.jpg` and so on; with `video` also
    `out/video/moving.mp4` and `out/annotations/instances_video.json`. `size` is about the side of an image in pixels.
    The annotation files are written last: where they are, the set is whole. UsageError where `out` holds something
    else and `overwrite` is off; a set left unfinished is made again.
    """
    _check(images=images, val_images=val_images, size=size, seed=seed)
    out = Path(out)
    _clear(out, overwrite)
    counts = dict(zip(SPLITS, (images, val_images), strict=True))
    trees = {split: _write_split(out, split, count, size, seed, progress) for split, count in counts.items()}
    if video:
        trees["video"] = _write_video(out / "video" / "moving.mp4", seed, progress)
    for name, tree in trees.items():
        write_text(out / "annotations" / f"instances_{name}.json", json.dumps(tree, separators=(",", ":")))
    (out / _UNFINISHED).unlink()
    return out


def draw_shapes(seed: int, split: str, index: int, *, size: int = 320) -> tuple[RGB, list[Thing]]:
    """One image of the set and what is in it: a pure function of its arguments."""
    random = np.random.default_rng([seed, SPLITS.index(split), index])
    height, width = _frame(random, size)
    scene, colour = background(random, height, width)
    unit = size / 320
    owners = np.full((height, width), -1, np.int16)
    things: list[Thing] = []
    if random.random() >= 0.03:
        if random.random() < 0.05:
            things.append(_crowd(random, scene, colour, owners, unit))
        _place_objects(random, scene, colour, owners, things, unit)
    return finish(random, scene), things


def _frame(random: Generator, size: int) -> tuple[int, int]:
    """(height, width): most are square, the rest up to a quarter more or less on a side."""
    if random.random() < 0.5:
        return size, size
    height, width = (random.uniform(0.75, 1.25, 2) * size).round().astype(int).tolist()
    return height, width


def _place_objects(
    random: Generator, scene: Floats, colour: Floats, owners: np.ndarray, things: list[Thing], unit: float
) -> None:
    """Draw 2 to 8 objects over one another, skipping a place where one would be hidden too much."""
    height, width = scene.shape[:2]
    whole: dict[int, int] = {}  # pixels of each object inside the frame
    shown: dict[int, int] = {}  # of those, not covered
    for number in range(1, 1 + int(random.integers(2, 9))):
        label = int(random.integers(len(SHAPES)))
        for _ in range(12):
            small = random.random() < 0.1
            extent = unit * math.exp(random.uniform(*np.log((14, 28) if small else (30, 125))))
            centre = random.uniform(0, width), random.uniform(0, height)
            cut = stencil(SHAPES[label], centre, extent, random.uniform(0, 2 * math.pi), random.uniform(0.8, 1.25))
            x1, y1, x2, y2 = cut.box
            box = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
            whole_area, kept_area = (x2 - x1) * (y2 - y1), (box[2] - box[0]) * (box[3] - box[1])
            hidden = cover(owners, cut)
            fair = all(
                shown[other] - lost >= FEWEST_VISIBLE * whole[other]
                for other, lost in enumerate(hidden.tolist()[1:])
                if lost and other in shown
            )
            if fair and kept_area >= 0.7 * whole_area and not (len(hidden) > 1 and hidden[1]):  # owner 0 is a crowd
                break
        else:
            continue
        whole[number] = shown[number] = int(cover(owners, cut, number).sum())
        for other, lost in enumerate(hidden.tolist()[1:]):
            if other in shown and other != number:
                shown[other] -= lost
        paint(scene, cut, surface(random, cut.alpha.shape, away_from=colour), shadow=0.35)
        things.append(Thing(label, box))


def _crowd(random: Generator, scene: Floats, colour: Floats, owners: np.ndarray, unit: float) -> Thing:
    """A heap of tiny ones of one class: too many and too small to be told apart, so one box marks them all."""
    height, width = scene.shape[:2]
    label = int(random.integers(len(SHAPES)))
    spread = unit * random.uniform(18, 36)
    middle = random.uniform(0.25, 0.75, 2) * (width, height)
    boxes = []
    for _ in range(int(random.integers(10, 24))):
        x, y = np.clip(random.normal(middle, spread), 12, (width - 12, height - 12)).tolist()
        cut = stencil(SHAPES[label], (x, y), unit * random.uniform(9, 15), random.uniform(0, 2 * math.pi))
        paint(scene, cut, surface(random, cut.alpha.shape, away_from=colour))
        cover(owners, cut, 0)
        boxes.append(cut.box)
    corners = np.array(boxes)
    x1, y1 = np.maximum(corners[:, :2].min(0), 0).tolist()
    x2, y2 = np.minimum(corners[:, 2:].max(0), (width, height)).tolist()
    owners[int(y1) : math.ceil(y2), int(x1) : math.ceil(x2)] = 0
    return Thing(label, (x1, y1, x2, y2), crowd=True)


def _write_split(out: Path, split: str, count: int, size: int, seed: int, progress: Progress | None) -> dict[str, Any]:
    folder = out / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    numbers: Iterable[int] = range(count)
    for index in progress(numbers, total=count, description=f"shapes {split}") if progress else numbers:
        image, things = draw_shapes(seed, split, index, size=size)
        name = f"{index:06d}.jpg"
        write_bytes(folder / name, _jpeg(image))
        images.append({"id": index + 1, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        annotations.extend([_row(len(annotations) + 1 + i, index + 1, thing) for i, thing in enumerate(things)])
    description = f"shapes, generated: seed {seed}, split {split}, size {size}"
    return {
        "info": {"description": description},
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
    }


def _write_video(path: Path, seed: int, progress: Progress | None) -> dict[str, Any]:
    """The file and its ground truth: an image per frame, which says so by `frame_index`; objects keep a `track_id`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def frames() -> Iterator[RGB]:
        scenes: Iterable[tuple[RGB, list[Thing]]] = moving_shapes(seed)
        for image, things in progress(scenes, total=FRAMES, description="shapes video") if progress else scenes:
            index = len(images)
            name = f"{path.name}#{index}"
            images.append({"id": index + 1, "file_name": name, "width": WIDTH, "height": HEIGHT, "frame_index": index})
            annotations.extend([_row(len(annotations) + 1 + i, index + 1, thing) for i, thing in enumerate(things)])
            yield image

    with written_aside(path) as aside:
        write_video(aside, frames())
    info = {"description": f"shapes, generated: seed {seed}, video", "video": path.name, "fps": RATE}
    return {"info": info, "images": images, "annotations": annotations, "categories": CATEGORIES}


def _row(number: int, image_id: int, thing: Thing) -> dict[str, Any]:
    """A row of COCO's `annotations`."""
    x1, y1, x2, y2 = thing.box
    return {
        "id": number,
        "image_id": image_id,
        "category_id": thing.label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(thing.crowd),
        **({} if thing.track is None else {"track_id": thing.track}),
    }


def _jpeg(image: RGB) -> bytes:
    stream = BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _check(**numbers: int) -> None:
    lowest = {"images": 1, "val_images": 1, "size": 64, "seed": 0}
    for name, value in numbers.items():
        if value < lowest[name]:
            raise UsageError(f"{name.replace('_', ' ')} is {value}; expected {lowest[name]} or more")
    if numbers["size"] > MOST_SIDE:
        raise UsageError(f"size is {numbers['size']}; expected {MOST_SIDE} or less")


def _clear(out: Path, overwrite: bool) -> None:
    """Make `out` ready: empty, or holding nothing of an older set. Only files of our own naming are removed."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; expected a folder to write the set to")
    if out.is_dir() and any(out.iterdir()) and not overwrite and not (out / _UNFINISHED).exists():
        raise UsageError(f"{out} already holds something; choose another folder, or allow it with --overwrite")
    require_writable(out)
    (out / _UNFINISHED).touch()
    for name in (*SPLITS, "video"):
        (out / "annotations" / f"instances_{name}.json").unlink(missing_ok=True)
    for split in SPLITS:
        for path in (out / "images" / split).glob("*.jpg"):
            if re.fullmatch(r"\d{6,}", path.stem):
                path.unlink()
    (out / "video" / "moving.mp4").unlink(missing_ok=True)
