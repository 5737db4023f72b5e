"""The options that look at pictures tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detr.cli.flags import together
from detr.errors import UsageError

if TYPE_CHECKING:
    from detr.slicing import Slicing

OVERLAP = 0.2


slice_options = together(
    click.option(
        "--slice",
        "tile",
        metavar="N|H,W",
        help="Look at tiles of so many pixels, and at the whole picture: for small objects in large pictures.",
    ),
    click.option("--overlap", type=float, help=f"Share of a tile its neighbour sees too.  [default: {OVERLAP}]"),
    click.option("--tiles-only", is_flag=True, help="With --slice: no look at the whole picture."),
)


def slicing_asked(tile: str | None, overlap: float | None, tiles_only: bool, *, batch: int) -> Slicing | None:
    """What the options ask for; None without --slice. UsageError for what makes no sense."""
    if tile is None:
        for flag, given in (("--overlap", overlap is not None), ("--tiles-only", tiles_only)):
            if given:
                raise UsageError(f"{flag} is for tiles; say how large they are with --slice, such as --slice 640")
        return None
    try:
        sides = [int(side) for side in tile.lower().replace("x", ",").split(",")]
    except ValueError:
        raise UsageError(f"--slice {tile}: expected a side such as 640, or height,width such as 480,640") from None
    from detr.runtime.settings import slicing_of

    return slicing_of(sides, overlap=OVERLAP if overlap is None else overlap, tiles_only=tiles_only, batch=batch)
