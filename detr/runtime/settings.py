"""What is kept of what a network says, and how it is asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from detr.classes import Classes
from detr.errors import UsageError, did_you_mean, listed
from detr.image import MOST_SIDE, STRIDE, InputConfig
from detr.models.network import DetectionNetwork
from detr.records import Detections
from detr.slicing import Slicing


@dataclass(frozen=True)
class Settings:
    """Made, and checked, by `Detector.settings`."""

    conf: float
    classes: tuple[int, ...] | None
    max_det: int
    input: InputConfig
    half: bool
    slicing: Slicing | None = None
    by_class: tuple[float, ...] | None = None  # the score of each class from which it is kept; `conf` is the lowest

    def kept(self, found: Detections) -> Detections:
        """Without what is scored below `conf`, or the threshold of its class."""
        least = self.conf if self.by_class is None else found.scores.new_tensor(self.by_class)[found.labels]
        keep = found.scores >= least
        return Detections(found.boxes[keep], found.scores[keep], found.labels[keep])

    def frames_at_once(self, batch: int) -> int:
        """How many are held for the network: one where it is sliced, as it may be large and fills batches alone."""
        return batch if self.slicing is None else 1


def set_effort(network: DetectionNetwork, *, layers: int | None = None, queries: int | None = None) -> None:
    """How many decoder layers and queries answer from now on; None leaves them. UsageError for more than there are."""
    if layers is not None:
        network.set_layers(layers)
    if queries is not None:
        network.set_queries(queries)


def slicing_of(slice: int | Sequence[int] | None, *, overlap: float, tiles_only: bool, batch: int) -> Slicing | None:
    """Tiles of a side, or (height, width), `batch` at once; None where nothing is to be sliced."""
    if slice is None:
        return None
    sides = tuple(slice) if isinstance(slice, Sequence) else (slice,)
    if len(sides) not in (1, 2) or not all(isinstance(side, int) for side in sides):
        raise UsageError(f"slice {slice!r}: expected a side in pixels, or a height and a width")
    return Slicing(sides[0], sides[-1], overlap=overlap, whole=not tiles_only, batch=batch)


_ELSEWHERE = {
    "iou": "the model gives each object once, and nothing is suppressed",
    "save": "call .save(path) of a result",
    "save_txt": "call .save_txt(path) of a result",
    "show": "call .show() of a result",
    "save_crop": "call .save_crop(folder) of a result",
    "dynamic": "say open_batch and open_size, True or False",
    "lr0": "it is a setting of the recipe: settings=['train.optimizer.lr=1e-4']",
    "patience": "it is a setting of the recipe: settings=['train.patience=10']",
    "device": "say it of the detector: Detector(weights, device='cpu'), or .to('cpu')",
    "resume": "on the command line: detr train --resume RUN",
}


def refuse(others: Mapping[str, object], function: Callable[..., object]) -> None:
    """UsageError for keywords that `function` doesn't know, with what to write instead."""
    known = [name for name in inspect.signature(function).parameters if name not in ("self", "source", "others")]
    for name in others:
        instead = _ELSEWHERE.get(name) or f"expected {listed(known, most=len(known))}{did_you_mean(name, known)}"
        raise UsageError(f"option {name!r}: {instead}")


def share(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:  # NaN is not either
        raise UsageError(f"{name} {value!r}: expected a number from 0 to 1")
    return float(value)


def at_least_1(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} {value!r}: expected a whole number from 1")
    return value


def class_indices(wanted: Sequence[int | str] | int | str, classes: Classes) -> tuple[int, ...]:
    """Class indices from indices and names, or several with commas; UsageError for one that the classes don't have."""
    known = {name.strip().casefold(): index for index, name in enumerate(classes.names)}
    chosen = []
    words = [str(word).strip() for word in ([wanted] if isinstance(wanted, (int, str)) else wanted)]
    for text in (part for word in words for part in _parted(word, known)):
        index = known.get(text.casefold())
        if index is None and text.lstrip("-").isdecimal():
            index = int(text)
            if not 0 <= index < len(classes):
                raise UsageError(f"class {index}: this model's classes are numbered 0 to {len(classes) - 1}")
        if index is None:
            nearest = did_you_mean(text, classes.names) or f"; it knows {listed(classes.names)}"
            raise UsageError(f"class {text!r} is none of this model's {len(classes)}{nearest}")
        chosen.append(index)
    if not chosen:
        raise UsageError("classes: an empty list finds nothing; leave it out to find all")
    return tuple(dict.fromkeys(chosen))


def _parted(word: str, known: Collection[str]) -> list[str]:
    """The words between the commas of one, unless it is itself known: a name may have some."""
    return [word] if word.casefold() in known else [part.strip() for part in word.split(",") if part.strip()]


def input_of_size(own: InputConfig, imgsz: int | Sequence[int] | None) -> InputConfig:
    """The input with another side, or (height, width); as it is where that is None.

    Where the input keeps the aspect, a side is the shorter one, and the limit of the longer one grows along.
    """
    if imgsz is None:
        return own
    sides = (imgsz,) if isinstance(imgsz, int) else tuple(imgsz)
    if len(sides) not in (1, 2) or not all(isinstance(side, int) for side in sides):
        raise UsageError(f"imgsz {imgsz!r}: expected a side, or a height and a width")
    if own.keeps_aspect:
        return _with_short_side(own, sides)
    for side in sides:
        if side < STRIDE or side > MOST_SIDE or side % STRIDE:
            nearest = min(max(STRIDE, round(side / STRIDE) * STRIDE), MOST_SIDE)
            raise UsageError(
                f"imgsz {side}: expected a multiple of {STRIDE} up to {MOST_SIDE}; the nearest is {nearest}"
            )
    return own.model_copy(update={"height": sides[0], "width": sides[-1]})


def _with_short_side(own: InputConfig, sides: tuple[int, ...]) -> InputConfig:
    if len(set(sides)) > 1:
        height, width = sides
        raise UsageError(
            f"imgsz {height},{width}: this model keeps the aspect of each image; expected the shorter side alone, "
            f"such as {min(sides)}"
        )
    most = int(MOST_SIDE * own.short / own.long)
    if not STRIDE <= sides[0] <= most:
        raise UsageError(f"imgsz {sides[0]}: expected a shorter side from {STRIDE} to {most}")
    return own.model_copy(update={"short": sides[0], "long": round(own.long * sides[0] / own.short)})
