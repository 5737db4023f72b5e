"""Prediction over files, videos and streams: reading, inference and writing at the same time, in constant memory."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detr.draw import Window
from detr.engine.detecting import Prepared, prepare
from detr.engine.detector import Detector
from detr.engine.results import Results
from detr.engine.saving import Saver, Wanted
from detr.engine.shares import Share, share_of
from detr.engine.silence import spoken_of
from detr.engine.tracking import Follower, Tracking, counts_json
from detr.errors import InputError, counted, listed, visible
from detr.runtime.ahead import ahead
from detr.runtime.progress import progress
from detr.runtime.settings import Settings
from detr.runtime.streams import in_streams, streams_of
from detr.tracking import Counted
from detr.video import Frame, FrameReader, Source

Say = Callable[[str], None]
DRAWN = Wanted()


@dataclass(eq=False)
class Summary:
    """What was done."""

    folder: Path
    images: int = 0
    videos: int = 0
    frames: int = 0  # of images and videos
    detections: int = 0
    of_classes: Counter[int] = field(default_factory=Counter)  # how many of them each class has
    best_score: float = 0.0  # of all the network said, left out or not
    conf: float | None = None  # the score that detections need; None where each class has its own
    tracks: int = 0
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)  # source -> line or zone -> in, out
    seconds: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)  # source, what was wrong
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """`2 images and 1 video, 37 detections, 21.5 frames/s`"""
        done = [(self.images, "image"), (self.videos, "video")]
        sources = " and ".join(counted(number, what) for number, what in done if number) or "part of a video"
        tracks = f", {counted(self.tracks, 'track')}" if self.tracks else ""
        found = counted(self.detections, "detection") + ("" if self.detections else self._why_nothing)
        return f"{sources}, {found}{tracks}, {self.frames / self.seconds:.1f} frames/s"

    @property
    def _why_nothing(self) -> str:
        """The best score is cut, not rounded: what is below --conf is not to look as if it were not."""
        best = f"{math.floor(1000 * self.best_score) / 1000:.3f}"
        if self.conf is None:
            return f" (best score {best}, all below the thresholds of --conf)"
        if self.best_score >= self.conf:
            return f" (best score {best}, but no object was found in two successive frames)"
        return f" (best score {best}, --conf {self.conf:g})"

    def to_json(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name != "of_classes"}
        failures = [{"source": source, "error": error} for source, error in self.failures]
        return {**own, "folder": str(self.folder), "seconds": round(self.seconds, 3), "failures": failures}


@dataclass(frozen=True, eq=False)
class _Begun:
    source: Source
    total: int | None  # frames to come, where that is known


@dataclass(frozen=True, eq=False)
class _Ended:
    source: Source
    notes: list[str]
    problem: InputError | None  # why it ended before its end
    tracks: int = 0
    counts: tuple[Counted, ...] = ()


@dataclass(frozen=True, eq=False)
class _Before:
    """When a source began, and what had been found until then."""

    time: float
    frames: int
    of_classes: Counter[int]


@dataclass(frozen=True, eq=False)
class _Found:
    frame: Frame
    result: Results


def predict(
    detector: Detector,
    sources: list[Source] | Share,
    settings: Settings,
    folder: Path,
    *,
    wanted: Wanted = DRAWN,
    show: bool = False,
    stride: int = 1,
    batch: int = 1,
    tracking: Tracking | None = None,
    fail_fast: bool = False,
    quiet: bool = False,
    say: Say = print,
) -> Summary:
    """Run the detector over all sources and leave what is wanted in `folder`.

    `sources` may be one process's share of them; the shares are put together by `detr.engine.shares`. With `tracking`,
    whose lowest score the settings should have, what is found in videos is followed. A source that
    can't be read is noted in the summary, and the others go on, unless `fail_fast`. Ctrl-C and SIGTERM
    leave videos and lists finished, with the frames so far. InputError where results can't be written.
    """
    share = sources if isinstance(sources, Share) else share_of(sources)
    conf = None if settings.by_class is not None else settings.conf if tracking is None else tracking.conf
    summary = Summary(folder, conf=conf)
    started = time.perf_counter()
    window = Window("detr") if show else None
    found = _stream(share.sources, detector, settings, tracking, stride=stride, batch=settings.frames_at_once(batch))
    bar = progress(total=None, description="predict", unit="frame", quiet=quiet)
    begun = _Before(time.perf_counter(), 0, Counter())
    number = 0  # of the source under way
    with Saver(folder, wanted, detector.classes, share) as saver, closing(bar), closing(found):
        for item in found:
            if isinstance(item, _Begun):
                _announce(item, bar)
                saver.begin(number)
                begun = _Before(time.perf_counter(), summary.frames, summary.of_classes.copy())
            elif isinstance(item, _Found):
                saver.add(item.result, item.frame)
                _count(item, summary)
                bar.update()
                is_image = item.frame.index is None
                if window is not None and not window.show(item.result.plot(channels="rgb"), wait=is_image):
                    break
            else:
                saver.end()
                number += 1
                _conclude(item, summary, detector.names, begun, bar.write if not bar.disable else say)
                if item.problem is not None and fail_fast:
                    break
        if window is not None:
            window.close()
    summary.notes += saver.notes
    summary.seconds = time.perf_counter() - started
    return summary


def _stream(
    sources: Sequence[Source],
    detector: Detector,
    settings: Settings,
    tracking: Tracking | None,
    *,
    stride: int,
    batch: int,
) -> Generator[_Begun | _Found | _Ended, None, None]:
    """Reading is ahead of the network, and the network of whoever takes this; less so of what is sliced, and large."""
    whole = settings.slicing is None
    soon = any(source.is_live for source in sources)
    streams = streams_of(detector.runner(half=settings.half)) if whole and not soon else 1
    frames, results = (2 * streams * batch + 2, 2) if whole else (1, 1)
    reading = ahead(_prepared(sources, settings, stride), depth=frames)
    detected = _detected(reading, detector, settings, batch, streams)
    return ahead(detected if tracking is None else _tracked(detected, tracking, stride), depth=results)


def _prepared(sources: Iterable[Source], settings: Settings, stride: int) -> Iterator[_Begun | Prepared | _Ended]:
    """Everything that can be read, in order, ready for the network. Runs in the reading thread."""
    channels = settings.input.channels
    for source in sources:
        notes: list[str] = []
        try:
            with FrameReader(source, stride=stride, channels=channels, go_on=spoken_of(source)) as reader:
                notes = reader.notes
                yield _Begun(source, reader.total)
                for frame in reader:
                    yield prepare(frame, settings)
        except InputError as problem:
            yield _Ended(source, notes, problem)
        else:
            yield _Ended(source, notes, None)


def _detected(
    items: Generator[_Begun | Prepared | _Ended, None, None],
    detector: Detector,
    settings: Settings,
    batch: int,
    streams: int,
) -> Generator[_Begun | _Found | _Ended, None, None]:
    """The same with results, in order. Runs in the network's thread, and those of its streams."""
    groups = _grouped(items, batch)
    answers = in_streams(lambda group: _answered(group, detector, settings), groups, streams=streams)
    with closing(items), closing(groups), closing(answers):
        for answered in answers:
            yield from answered


def _grouped(
    items: Iterable[_Begun | Prepared | _Ended], batch: int
) -> Generator[list[_Begun | Prepared | _Ended], None, None]:
    """With `batch` frames in each group, which reach over the ends of sources."""
    waiting: list[_Begun | Prepared | _Ended] = []
    count = 0
    live = False
    for item in items:
        waiting.append(item)
        count += isinstance(item, Prepared)
        if isinstance(item, _Begun):
            live = item.source.is_live
        if count == batch or count == 0 or live:  # a live stream is not kept waiting for a batch to fill
            yield waiting
            waiting, count = [], 0
    yield waiting


def _tracked(
    items: Generator[_Begun | _Found | _Ended, None, None], tracking: Tracking, stride: int
) -> Iterator[_Begun | _Found | _Ended]:
    """The same with ids. What is wrong with a source ends that source, and the rest of its frames is left out."""
    follower = Follower(tracking, stride=stride)
    problem: InputError | None = None
    with closing(items):
        for item in items:
            if isinstance(item, _Begun):
                follower, problem = Follower(tracking, stride=stride), None
                yield item
            elif isinstance(item, _Ended):
                ended = replace(item, tracks=follower.num_tracks, counts=follower.counts)
                yield ended if problem is None else replace(ended, problem=problem)
            elif problem is None:
                try:
                    followed = follower.follow(item.result, item.frame)
                except InputError as refused:
                    problem = refused
                else:
                    yield _Found(item.frame, followed)


def _answered(
    waiting: list[_Begun | Prepared | _Ended], detector: Detector, settings: Settings
) -> list[_Begun | _Found | _Ended]:
    group = [item for item in waiting if isinstance(item, Prepared)]
    results = iter(detector.detect(group, settings) if group else [])
    return [_Found(item.frame, next(results)) if isinstance(item, Prepared) else item for item in waiting]


def _announce(item: _Begun, bar: Any) -> None:
    """The bar's total grows source by source; where one has no known end, there is no percentage."""
    if item.total is None:
        bar.total = None
    elif bar.total is not None or bar.n == 0:
        bar.total = (bar.total or 0) + item.total
    bar.set_postfix_str(visible(item.source.name), refresh=True)


def _count(item: _Found, summary: Summary) -> None:
    summary.frames += 1
    summary.detections += len(item.result)
    summary.of_classes.update(item.result.detections.labels.tolist())
    summary.best_score = max(summary.best_score, item.result.best_score or 0.0)
    summary.images += item.frame.index is None


def _found_words(of_classes: Counter[int], names: Mapping[int, str]) -> str:
    """`3 detections (2 person, 1 dog)`, the most frequent first."""
    each = listed([f"{count:,} {names[label]}" for label, count in of_classes.most_common()])
    return counted(of_classes.total(), "detection") + (f" ({each})" if each else "")


def _conclude(item: _Ended, summary: Summary, names: Mapping[int, str], before: _Before, say: Say) -> None:
    summary.notes += [f"{item.source.path}: {note}" for note in item.notes]
    summary.tracks += item.tracks
    if item.counts:
        summary.counts[item.source.path] = counts_json(item.counts, names)
    if item.problem is not None:
        summary.failures.append((item.source.path, str(item.problem)))
        return
    count, seconds = summary.frames - before.frames, time.perf_counter() - before.time
    if item.source.kind != "image" and count:
        summary.videos += 1
    rate = f", {count / seconds:.1f} frames/s" if count > 1 else ""
    frames_said = f"{counted(count, 'frame')}, " if item.source.kind != "image" else ""
    tracks_said = f", {counted(item.tracks, 'track')}" if item.tracks else ""
    found = _found_words(summary.of_classes - before.of_classes, names)
    say(visible(f"{item.source.path}: {frames_said}{found}{tracks_said}{rate}"))
    for one in item.counts:
        say(visible(f"  {one.said(names)}"))
