"""What an exported file says about itself, so that it runs without anything else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from operator import index
from pathlib import Path
from typing import Any

from detr import __version__
from detr.classes import Classes
from detr.errors import InputError
from detr.export.form import PLAIN, Form
from detr.models import Network
from detr.models.inspection import digest_of
from detr.models.postprocess import Scoring
from detr.models.presets import model_config

FORMAT = 1
KEY = "detr"
"""Under which an ONNX file's metadata and an OpenVINO file's runtime information keep it."""


@dataclass(frozen=True, eq=False)
class About:
    config: Any  # the model's settings; its `input` is the size that the file takes
    classes: Classes
    scoring: Scoring
    size: tuple[int, int]  # (height, width) of the images
    takes_padding: bool  # images are padded to that size, and a mask says where
    int8: bool = False
    form: Form = PLAIN
    numbers: str | None = None  # SHA-256 of the weights it was made of, as `digest_of` tells it

    def to_json(self) -> str:
        slots = self.scoring.slots
        return json.dumps(
            {
                "format": FORMAT,
                "version": __version__,
                "model": self.config.model_dump(mode="json"),
                "classes": self.classes.to_json(),
                "slots": None if slots is None else list(slots),
                "exclusive": self.scoring.exclusive,
                "size": list(self.size),
                "takes_padding": self.takes_padding,
                "int8": self.int8,
                "form": asdict(self.form),
                "numbers": self.numbers,
            }
        )


def about_of(network: Network, form: Form = PLAIN, *, int8: bool = False) -> About:
    """For images of the size in the network's own settings.

    A model that keeps the aspect of images takes them padded to a square, of which both sides are the longest there is.
    """
    input = network.config.input
    longest = -(-input.long // 32) * 32
    size = (longest, longest) if input.keeps_aspect else (input.height, input.width)
    numbers = digest_of(network)
    return About(network.config, network.classes, network.scoring, size, input.keeps_aspect, int8, form, numbers)


def about_from(text: str | None, path: Path) -> About:
    """The inverse of `to_json`; InputError where a file says nothing, or something else."""
    if not text:
        raise InputError(f"{path} doesn't say what it is; expected a file that `detr export` wrote")
    try:
        tree = json.loads(text)
        if tree["format"] > FORMAT:
            raise InputError(f"it was written by detr {tree['version']}, newer than this one ({__version__})")
        slots = tree["slots"]
        return About(
            config=model_config(tree["model"], "model"),
            classes=Classes.from_json(tree["classes"]),
            scoring=Scoring(None if slots is None else tuple(map(index, slots)), bool(tree["exclusive"])),
            size=_sides(tree["size"]),
            takes_padding=bool(tree["takes_padding"]),
            int8=bool(tree["int8"]),
            form=Form(**tree.get("form", {})),
            numbers=tree.get("numbers"),
        )
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(f"{path}: what it says about itself is damaged ({problem!r})") from None


def _sides(size: list[int]) -> tuple[int, int]:
    height, width = map(index, size)
    if min(height, width) < 1:
        raise ValueError(f"images of {height} x {width}")
    return height, width
