"""A TensorRT engine in a file that says what it is: a heading, then the engine as TensorRT gave it.

The file begins with the 8 bytes `detr.trt`, then the length of the heading in 8 bytes, lowest first, then the heading,
JSON in UTF-8; all that follows is the engine, which other programs take without what comes before it. The heading has
`about` (the network, class names, sizes, as in every exported file), `place` (the TensorRT and GPU it was built for),
`shapes` (of each input the least, the best and the most), and `sha256` of the engine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detr.errors import InputError
from detr.export.about import About, about_from
from detr.export.tensorrt_place import Place
from detr.files import written_aside

MAGIC = b"detr.trt"
_LONGEST = 64 * 2**20  # of a heading, in bytes

Shape = tuple[int, ...]
Shapes = dict[str, tuple[Shape, Shape, Shape]]
"""The least, the best and the most of each input."""


@dataclass(frozen=True, eq=False)
class Heading:
    about: About
    place: Place
    shapes: Shapes
    sha256: str
    length: int  # bytes before the engine


def write_engine(path: Path, engine: bytes, *, about: About, place: Place, shapes: Shapes) -> None:
    heading = {
        "about": json.loads(about.to_json()),
        "place": asdict(place),
        "shapes": shapes,
        "sha256": hashlib.sha256(engine).hexdigest(),
    }
    text = json.dumps(heading).encode()
    with written_aside(path) as aside, aside.open("wb") as file:
        file.write(MAGIC + len(text).to_bytes(8, "little") + text)
        file.write(engine)


def read_heading(path: Path) -> Heading:
    """InputError where there is none: an engine that another program made, or no engine at all."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 8)
        count = int.from_bytes(start[len(MAGIC) :], "little")
        text = file.read(min(count, _LONGEST)) if start.startswith(MAGIC) else b""
    if not text or len(text) < count:
        raise InputError(f"{path} doesn't say what it is; expected an engine that `detr export` wrote, whole")
    try:
        tree = json.loads(text)
        shapes: Any = {name: tuple(tuple(shape) for shape in three) for name, three in tree["shapes"].items()}
        about = about_from(json.dumps(tree["about"]), path)
        return Heading(about, Place(**tree["place"]), shapes, tree["sha256"], len(start) + count)
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{path}: what it says about itself is damaged ({problem!r})") from None


def read_engine(path: Path, heading: Heading) -> bytes:
    """InputError where a byte is missing or another: TensorRT would load it, and could do anything."""
    with path.open("rb") as file:
        file.seek(heading.length)
        engine = file.read()
    if hashlib.sha256(engine).hexdigest() != heading.sha256:
        raise InputError(f"{path} is damaged: the engine in it isn't the one that was written; export it again")
    return engine
