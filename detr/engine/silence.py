"""Sources that send nothing: said after a while, again whenever that has doubled, left when nobody waits any more."""

from __future__ import annotations

import warnings

from detr.runtime.ahead import is_wanted
from detr.video import Source
from detr.video.pipes import GoOn

SILENCE = 10.0  # seconds after which a source that sends nothing is spoken of


def spoken_of(source: Source) -> GoOn:
    """What a `FrameReader` of the source asks while nothing comes."""
    due = SILENCE

    def go_on(seconds: float) -> bool:
        nonlocal due
        if seconds < SILENCE:
            due = SILENCE
        elif seconds >= due:
            warnings.warn(f"{source.called}: nothing has come for {seconds:.0f} s; waiting for more", stacklevel=2)
            due *= 2
        return is_wanted()

    return go_on
