"""What is kept of what a network says, and how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detr.classes import Classes
from detr.errors import UsageError, did_you_mean
from detr.image import MOST_SIDE, InputConfig

STRIDE = 32  # the input's sides are multiples of it


@dataclass(frozen=True)
class Settings:
    """Made by `checked_settings`."""

    conf: float
    classes: tuple[int, ...] | None
    max_det: int
    input: InputConfig
    half: bool


def checked_settings(
    known: Classes,
    own: InputConfig,
    *,
    conf: float = 0.25,
    classes: Sequence[int | str] | int | str | None = None,
    max_det: int = 300,
    imgsz: int | Sequence[int] | None = None,
    half: bool = False,
) -> Settings:
    """`known` and `own` are the model's classes and input. UsageError for a value that makes no sense."""
    if isinstance(conf, bool) or not isinstance(conf, (int, float)) or not 0 <= conf <= 1:  # NaN is not either
        raise UsageError(f"conf {conf!r}: expected a number from 0 to 1")
    chosen = None if classes is None else _indices(classes, known)
    return Settings(float(conf), chosen, at_least_1("max_det", max_det), input_of_size(own, imgsz), half)


def at_least_1(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} {value!r}: expected a whole number from 1")
    return value


def _indices(wanted: Sequence[int | str] | int | str, classes: Classes) -> tuple[int, ...]:
    """Class indices from indices and names."""
    known = {name.strip().casefold(): index for index, name in enumerate(classes.names)}
    chosen = []
    for word in [wanted] if isinstance(wanted, (int, str)) else wanted:
        text = str(word).strip()
        index = known.get(text.casefold())
        if index is None and text.lstrip("-").isdecimal():
            index = int(text)
            if not 0 <= index < len(classes):
                raise UsageError(f"class {index}: this model's classes are numbered 0 to {len(classes) - 1}")
        if index is None:
            some = ", ".join(classes.names[:5]) + (", ..." if len(classes) > 5 else "")
            nearest = did_you_mean(text, classes.names) or f"; it knows {some}"
            raise UsageError(f"class {text!r} is none of this model's {len(classes)}{nearest}")
        chosen.append(index)
    if not chosen:
        raise UsageError("classes: an empty list finds nothing; leave it out to find all")
    return tuple(dict.fromkeys(chosen))


def input_of_size(own: InputConfig, imgsz: int | Sequence[int] | None) -> InputConfig:
    """The input with another side, or (height, width); as it is where that is None."""
    if imgsz is None:
        return own
    sides = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz)
    if len(sides) == 1:
        sides = sides * 2
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise UsageError(f"imgsz {imgsz!r}: expected a side, or a height and a width")
    for side in sides:
        if side < STRIDE or side > MOST_SIDE or side % STRIDE:
            nearest = min(max(STRIDE, round(side / STRIDE) * STRIDE), MOST_SIDE)
            raise UsageError(
                f"imgsz {side}: expected a multiple of {STRIDE} up to {MOST_SIDE}; the nearest is {nearest}"
            )
    return own.model_copy(update={"height": sides[0], "width": sides[1]})
