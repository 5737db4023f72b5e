"""A video frame by frame through the network that others ask too, a line of JSON for each."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Any

from detr.engine.results import Results
from detr.errors import InputError
from detr.runtime.settings import Settings
from detr.serve.batching import Batcher, prepared_alone
from detr.serve.limits import Limits
from detr.video import Frame, FrameReader, Source


def lines_of(
    path: Path, settings: Settings, batcher: Batcher, *, stride: int, limits: Limits, ahead: int
) -> Generator[str, None, None]:
    """A line for each frame, then one with what is to be said of the whole; InputError for what can't be opened.

    Up to `ahead` frames are with the network at a time.
    """
    source = Source("video", str(path))
    try:
        reader = FrameReader(source, stride=stride, channels=settings.input.channels, most_pixels=limits.video_pixels)
    except InputError as problem:
        raise type(problem)(str(problem).replace(str(path), "video")) from None
    return _lines(reader, settings, batcher, limits.frames, ahead)


def _lines(
    reader: FrameReader, settings: Settings, batcher: Batcher, most: int, ahead: int
) -> Generator[str, None, None]:
    waiting: deque[Future[Results]] = deque()
    count, end = 0, {}

    def decoded() -> Generator[Frame, None, None]:
        try:
            yield from reader
        except InputError as problem:  # what was decoded before is answered all the same
            end["error"] = said(problem)

    def said(problem: InputError) -> str:
        return str(problem).replace(reader.source.path, "video")

    with reader:
        frames = decoded()
        try:
            for frame in islice(frames, most):
                waiting.append(batcher.look(prepared_alone(frame, settings), settings))
                count += 1
                if len(waiting) >= ahead:
                    yield _line(waiting.popleft().result())
            while waiting:
                yield _line(waiting.popleft().result())
            if next(frames, None) is not None:
                end["left_out"] = f"all after the first {most:,} frames"
        except InputError as problem:
            end["error"] = said(problem)
        finally:
            for future in waiting:
                future.cancel()
    yield _as_line({"frames": count, "notes": reader.notes, **end})


def _line(result: Results) -> str:
    return _as_line({"frame": result.frame, "time": result.time, "detections": result.summary()})


def _as_line(tree: dict[str, Any]) -> str:
    return json.dumps(tree, ensure_ascii=False, allow_nan=False) + "\n"
