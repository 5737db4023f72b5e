"""Results of a video, frame after frame -> the same with ids, trails and counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from detr.engine.results import Results
from detr.errors import InputError, UsageError
from detr.tracking import Anchor, Counted, Counter, Place, Tracker
from detr.tracking.counting import Point, anchor_of
from detr.video import Frame, Source

if TYPE_CHECKING:
    from detr.engine.detector import Detector
    from detr.runtime.settings import Settings

WEAK = 0.1
"""As in ByteTrack's paper (section 3). With DEIMv2-Atto on a video of a crowd it halves the tracks that end within a
second, and keeps the far people that 0.8 of `conf` loses; in return some second boxes of a person live on."""


@dataclass(frozen=True)
class Tracking:
    """How the objects of a video are followed. UsageError for what makes no sense."""

    conf: float = 0.25  # a score from which on a new track may begin
    weak: float | None = None  # down to which a track is kept going; `WEAK`, or a lower `conf`, where it isn't given
    patience: float = 1.0  # seconds after which an object that is not found again is given up
    places: tuple[Place, ...] = ()  # lines and zones where tracks are counted
    anchor: Anchor = "middle"
    trail: float = 1.0  # seconds of its way that are drawn behind an object

    def __post_init__(self) -> None:
        if not 0 <= self.lowest <= self.conf <= 1:
            raise UsageError(f"weak {self.weak}, conf {self.conf}: expected from 0 to 1, and weak not above conf")
        for name, value in (("patience", self.patience), ("trail", self.trail)):
            if not 0 <= value <= 3600:  # NaN is not either
                raise UsageError(f"{name} {value}: expected seconds, from 0 to 3600")
        names = [place.name for place in self.places]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two lines or zones are called {name!r}; give each a name of its own")

    @property
    def lowest(self) -> float:
        """The score that detections need to be of any use."""
        return min(WEAK, self.conf) if self.weak is None else self.weak


def places_of(lines: Iterable[str], zones: Iterable[str]) -> tuple[Place, ...]:
    """Lines and zones as they are typed (see `Place.read`)."""
    return tuple(
        Place.read(text, is_line=is_line, number=number)
        for is_line, texts in ((True, lines), (False, zones))
        for number, text in enumerate(texts, start=1)
    )


def counts_json(counts: Sequence[Counted], names: Mapping[int, str]) -> dict[str, Any]:
    """Line or zone -> `in` and `out`, of zones also `inside` and `seen`, each by class."""
    return {one.place.name: one.to_json(names) for one in counts}


class Follower:
    """Follows one video: made anew for each, so that ids begin at 1."""

    def __init__(self, tracking: Tracking, *, stride: int = 1) -> None:
        self._tracking, self._stride = tracking, stride
        self._tracker: Tracker | None = None
        self._counters: list[Counter] = []
        self._trails: dict[int, deque[Point]] = {}
        self.num_tracks = 0
        self.counts: tuple[Counted, ...] = ()

    def follow(self, result: Results, frame: Frame) -> Results:
        """The next result with what belongs to tracks only. InputError for a frame that is a picture by itself."""
        if frame.index is None:
            raise InputError(f"{frame.path}: a single picture, in which nothing can be followed")
        if self._tracker is None:
            self._begin(frame)
        assert self._tracker is not None
        found = self._tracker.update(result.detections, time=frame.time)
        alive = self._tracker.alive
        assert found.track_ids is not None
        self.num_tracks = max(self.num_tracks, int(found.track_ids.max()) if len(found) else 0)
        self.counts = tuple(counter.update(found, alive) for counter in self._counters)
        for box, track in zip(found.boxes.tolist(), found.track_ids.tolist(), strict=True):
            way = self._trails.setdefault(track, deque(maxlen=self._steps))
            way.append(anchor_of(box, self._tracking.anchor))
        for track in self._trails.keys() - alive:
            del self._trails[track]
        tracked = Results.of(
            result.image,
            found,
            path=result.path,
            names=result.names,
            speed=result.speed,
            frame=result.frame,
            time=result.time,
        )
        shown = {track: tuple(self._trails[track]) for track in found.track_ids.tolist()}
        return replace(tracked, trails=shown, counts=self.counts, best_score=result.best_score)

    def _begin(self, frame: Frame) -> None:
        rate = float(frame.rate or 25) / self._stride
        self._tracker = Tracker(rate=rate, conf=self._tracking.conf, patience=self._tracking.patience)
        places = [place.within(*frame.image.shape[:2]) for place in self._tracking.places]
        self._counters = [Counter(place, anchor=self._tracking.anchor) for place in places]
        self._steps = round(self._tracking.trail * rate)


def follow_all(
    detector: Detector, frames: Iterable[Frame], settings: Settings, tracking: Tracking, *, stride: int, batch: int
) -> Iterator[Results]:
    """The results of frames, which may be of several videos one after the other, with ids."""
    passed: deque[Frame] = deque()

    def noted() -> Iterator[Frame]:
        for frame in frames:
            passed.append(frame)
            yield frame

    follower, source = Follower(tracking, stride=stride), None
    for result in detector.results(noted(), settings, batch=batch):
        frame = passed.popleft()
        if frame.index == 0 or (frame.source is not source and frame.source.kind != "sequence"):
            follower, source = Follower(tracking, stride=stride), frame.source
        yield follower.follow(result, frame)


def numbered(frames: Iterable[Frame], fps: float | None) -> Iterator[Frame]:
    """Pictures that follow each other as the frames of one video; UsageError where nobody said that they are."""
    rate = None if fps is None else Fraction(fps).limit_denominator(1_000_000)
    number = 0
    for frame in frames:
        if frame.index is not None:
            number = 0
            yield frame
            continue
        if rate is None:
            raise UsageError(f"{frame.path} is an image; where pictures are the frames of a video, say fps=25 or so")
        source = Source("sequence", frame.path)
        yield replace(frame, source=source, index=number, pts=number, time_base=1 / rate, rate=rate)
        number += 1
