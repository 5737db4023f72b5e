"""The options that follow objects through videos and count them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli.flags import together
from detr.errors import UsageError

if TYPE_CHECKING:
    from detr.engine.tracking import Tracking
    from detr.video import Source

tracking_options = together(
    click.option("--track", is_flag=True, help="Follow objects through videos: `detr track` is short for it."),
    click.option(
        "--line",
        "lines",
        multiple=True,
        metavar="X1,Y1,X2,Y2[:NAME]",
        help="Count what crosses it: in is from its left to its right. Pixels, or shares of the picture from 0 to 1.",
    ),
    click.option(
        "--zone",
        "zones",
        multiple=True,
        metavar="X1,Y1,X2,Y2,X3,Y3...[:NAME]",
        help="Count what enters, leaves and is in it.",
    ),
    click.option(
        "--count-at",
        type=click.Choice(["middle", "bottom"]),
        help="The point of a box that crosses and enters: its middle, or that of its lower edge.  [default: middle]",
    ),
    click.option(
        "--weak",
        type=float,
        help="Detections from here to --conf keep tracks going but begin none.  [default: 0.1]",
    ),
    click.option(
        "--patience", "lost_after", type=float, help="Seconds after which what is lost gets a new id.  [default: 1]"
    ),
    click.option("--trail", type=float, help="Seconds of its way drawn behind an object; 0 for none.  [default: 1]"),
    click.option("--fps", type=float, help="Images are the frames of one video per folder, so many a second."),
    click.option("--save-mot", is_flag=True, help="mot/NAME.txt: frame,id,x,y,w,h,conf,class,visibility."),
)
NAMES = ("lines", "zones", "count_at", "weak", "lost_after", "trail", "fps", "save_mot")


def tracking_asked(track: bool, lowest: float | Path, given: Mapping[str, Any]) -> Tracking | None:
    """What the options ask for; None without --track. UsageError for what makes no sense."""
    if not track:
        for name, flag in zip(NAMES, (option_flag(name) for name in NAMES), strict=True):
            if given[name] not in (None, (), False):
                raise UsageError(f"{flag} is for following objects; say --track as well, or detr track")
        return None
    if isinstance(lowest, Path):
        raise UsageError(f"--conf {lowest}: tracks begin at one score, the same for all classes; say a number")
    fps = given["fps"]
    if fps is not None and not 0 < fps <= 1000:  # NaN is not either
        raise UsageError(f"--fps {fps}: expected frames per second, above 0 and up to 1000")
    from detr.engine.tracking import Tracking, places_of

    options = {
        "weak": given["weak"],
        "patience": given["lost_after"],
        "trail": given["trail"],
        "anchor": given["count_at"],
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    return Tracking(conf=lowest, places=places_of(given["lines"], given["zones"]), **chosen)


def option_flag(name: str) -> str:
    return {"lines": "--line", "zones": "--zone", "lost_after": "--patience"}.get(name, "--" + name.replace("_", "-"))


def as_videos(sources: list[Source], fps: float | None) -> list[Source]:
    """Images taken for the frames of a video; UsageError where nobody said that they are."""
    from detr.video import as_sequences

    if fps is not None:
        return as_sequences(sources, fps)
    for source in sources:
        if source.kind == "image":
            raise UsageError(
                f"{source.path} is an image, in which nothing moves; where the images of a folder are the frames of a "
                "video, say how many there are a second, such as --fps 25"
            )
    return sources
