"""Sources that send nothing: said after a while, again whenever that has doubled, left when nobody waits any more."""

from __future__ import annotations

import warnings

from detr.runtime.ahead import is_wanted
from detr.video import Source
from detr.video.pipes import GoOn
from detr.video.reading import SILENCE


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
