"""Words of the command line as values, and lines for people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from detr.errors import InputError, UsageError, visible

SEED = click.IntRange(0, 2**32 - 1)  # of NumPy's generators, among others


class Finite(click.FloatRange):
    """A range that NaN is not in either, nor is infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def share(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # NaN is not either
        nearest = f"; did you mean {value / 100:g}?" if 5 <= value <= 100 else ""
        raise UsageError(f"{flag} {text}: expected a number from 0 to 1{nearest}")
    return value


def box(flag: str, text: str) -> tuple[float, ...]:
    """`x1,y1,x2,y2`, none of them negative."""
    try:
        left, top, right, bottom = (float(word) for word in text.split(","))
    except ValueError:
        left = right = math.nan
    if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
        raise UsageError(
            f"{flag} {text}: expected x1,y1,x2,y2: left, top, right and lower side, in pixels or as shares"
        )
    return left, top, right, bottom


def threshold(flag: str, text: str) -> float | Path:
    """A score, or a file of thresholds by class."""
    return Path(text) if text.endswith(".json") else share(flag, text)


def sides(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(side) for side in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise UsageError(f"--imgsz {text}: expected a side such as 640, or height,width such as 480,640") from None


def to_stdout(line: str, *, err: bool = False) -> None:
    """A line for people; on stderr with `err`."""
    click.echo(visible(line), err=err)


def to_stderr(line: str) -> None:
    to_stdout(line, err=True)


def print_json(tree: dict[str, Any]) -> None:
    """The one line that --json leaves on stdout (`docs/json.md` says what is called what); null for NaN and infinity,
    which JSON doesn't have, but the metadata of a file may."""
    click.echo(json.dumps(json.loads(json.dumps(tree), parse_constant=lambda name: None)))


def say_nothing(line: str) -> None:
    pass


def raise_for(failures: Sequence[tuple[str, str]], num_sources: int) -> None:
    """InputError where a source failed, by (source, what was wrong); of several each is said first."""
    if not failures:
        return
    if num_sources == 1:
        raise InputError(failures[0][1])
    for _, error in failures:
        to_stderr(f"failed: {' '.join(error.split())}")
    raise InputError(f"{len(failures)} of {num_sources} sources failed")
