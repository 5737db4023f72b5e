"""Which parts of a picture are looked at: tiles that cover it and overlap, and the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detr.errors import UsageError


@dataclass(frozen=True)
class Slicing:
    """How pictures are taken apart. UsageError for what makes no sense."""

    height: int  # of a tile, in pixels of the picture
    width: int
    overlap: float = 0.2  # share of a tile that its neighbour sees too, at least
    whole: bool = True  # look at the whole picture as well, for what is larger than a tile
    batch: int = 1  # tiles the network sees at once

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 32:
            raise UsageError(f"slice {min(self.height, self.width)}: expected tiles of 32 pixels or more")
        if not 0 <= self.overlap <= 0.8:  # NaN is not either
            raise UsageError(f"overlap {self.overlap}: expected a share of the tile from 0 to 0.8")


@dataclass(frozen=True)
class View:
    """A part of a picture, in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.bottom - self.top, self.right - self.left


def views_of(height: int, width: int, slicing: Slicing) -> list[View]:
    """The tiles of a picture row by row, then the whole of it where wanted; the whole alone where that is one tile.

    Tiles are spread evenly, so their overlap is what was asked for or a little more, and none reaches over the border.
    An object that is smaller than the overlap is whole in one of them.
    """
    whole = View(0, 0, width, height)
    tops = _starts(height, slicing.height, slicing.overlap)
    lefts = _starts(width, slicing.width, slicing.overlap)
    if len(tops) == len(lefts) == 1:
        return [whole]
    tiles = [
        View(left, top, min(left + slicing.width, width), min(top + slicing.height, height))
        for top in tops
        for left in lefts
    ]
    return [*tiles, whole] if slicing.whole else tiles


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along one side."""
    room = length - tile
    if room <= 0:
        return [0]
    gaps = math.ceil(room / math.floor(tile * (1 - overlap)))
    return [(2 * place * room + gaps) // (2 * gaps) for place in range(gaps + 1)]
