"""`detr track`: `detr predict --track`."""

from __future__ import annotations

from functools import partial

from detr.cli import predict
from detr.cli.help import Verb

_WORDS = """Follow objects through each SOURCE: a video, a camera, a stream, or with --fps a folder of images.

Each object keeps its number (ByteTrack); --line and --zone count. The same as `detr predict --track`, in
runs/track/NAME. An object gets its number when it is found in two successive frames, and what has none is left out.

\b
  detr track walk.mp4 --save-json --save-mot
  detr track street.mp4 --classes car,bus --line 0,0.6,1,0.6:stop
  detr track MOT17-02/img1 --fps 30 --zone 100,200,500,200,500,400:square
"""

_callback = predict.command.callback
assert _callback is not None
command = Verb(
    "track",
    params=[option for option in predict.command.params if option.name != "track"],
    callback=partial(_callback, track=True),
    help=_WORDS,
    context_settings={"show_default": True},
)
