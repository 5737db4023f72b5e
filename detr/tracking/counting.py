"""How many tracks crossed a line or entered a zone, which way, class by class."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detr.errors import InputError, UsageError
from detr.records import Detections

Point = tuple[float, float]
Anchor = Literal["middle", "bottom"]
"""The point of a box that counts: its middle, or that of its lower edge, where it stands on the ground."""

STEADY = 0.1  # of a box's shorter side: so near to a border, a point is on neither side, and a box may tremble


@dataclass(frozen=True)
class Place:
    """A line (2 points) or a zone (3 or more), in pixels, or as shares of the picture where no number is over 1."""

    name: str
    points: tuple[Point, ...]

    @property
    def is_line(self) -> bool:
        return len(self.points) == 2

    @classmethod
    def read(cls, text: str, *, is_line: bool, number: int) -> Place:
        """`x1,y1,x2,y2:name`, the name being optional; UsageError for what is none."""
        kind, expected = ("line", "x1,y1,x2,y2") if is_line else ("zone", "x1,y1,x2,y2,x3,y3 or more")
        numbers, _, name = text.partition(":")
        try:
            values = [float(value) for value in numbers.split(",")]
        except ValueError:
            values = []
        points = tuple(zip(values[0::2], values[1::2], strict=False))
        count_is_right = len(values) == 4 if is_line else len(values) >= 6 and len(values) % 2 == 0
        if not count_is_right or not all(0 <= value < math.inf for value in values) or len(set(points)) < len(points):
            raise UsageError(
                f"{kind} {text!r}: expected {expected}, different points in pixels or, from 0 to 1, as shares of the "
                f"picture, and a name behind a colon if you like"
            )
        return cls(name.strip() or f"{kind} {number}", points)

    def within(self, height: int, width: int) -> Place:
        """In pixels. InputError where it lies outside of a picture of that size."""
        if all(value <= 1 for point in self.points for value in point):
            return Place(self.name, tuple((x * width, y * height) for x, y in self.points))
        if any(x > width or y > height for x, y in self.points):
            raise InputError(f"{self.name} lies outside of the picture, which is {width} x {height}")
        return self


@dataclass(frozen=True)
class Counted:
    """What was counted at a place so far, by class index."""

    place: Place  # in pixels
    entered: Mapping[int, int]  # crossed the line from its left to its right as one looks along it; came into the zone
    left: Mapping[int, int]  # the other way
    inside: Mapping[int, int]  # of a zone: in this frame
    seen: Mapping[int, int]  # of a zone: different tracks that were inside at any time

    def said(self, names: Mapping[int, str]) -> str:
        """`door: 3 in (2 car, 1 bus), 0 out`"""
        first, second = ("in", "out") if self.place.is_line else ("inside", "seen")
        parts = []
        for word, tally in self.to_json(names).items():
            if word in (first, second):
                classes = ", ".join(f"{count} {name}" for name, count in tally.items())
                parts.append(f"{sum(tally.values())} {word}" + (f" ({classes})" if classes else ""))
        return f"{self.place.name}: {', '.join(parts)}"

    def to_json(self, names: Mapping[int, str]) -> dict[str, Any]:
        tallies = {"in": self.entered, "out": self.left}
        if not self.place.is_line:
            tallies |= {"inside": self.inside, "seen": self.seen}
        return {
            key: {names[label]: count for label, count in sorted(tally.items()) if count}
            for key, tally in tallies.items()
        }


class Counter:
    """Counts the tracks of one video at one place, in memory that only grows with the tracks alive."""

    def __init__(self, place: Place, *, anchor: Anchor = "middle") -> None:
        """`place` in pixels."""
        self.place, self._anchor = place, anchor
        self._last: dict[int, tuple[bool, Point]] = {}  # side, or inside; where
        self._has_been_inside: set[int] = set()
        self._entered: Tally[int] = Tally()
        self._left: Tally[int] = Tally()
        self._seen: Tally[int] = Tally()

    def update(self, found: Detections, alive: set[int]) -> Counted:
        """The counts after one more frame; `alive` are the tracks that may come again."""
        assert found.track_ids is not None
        inside: Tally[int] = Tally()
        rows = zip(found.boxes.tolist(), found.labels.tolist(), found.track_ids.tolist(), strict=True)
        for box, label, track in rows:
            point = anchor_of(box, self._anchor)
            distance = _line_distance(point, self.place.points) if self.place.is_line else self._zone_distance(point)
            if abs(distance) >= STEADY * min(box[2] - box[0], box[3] - box[1]):
                self._settle(track, label, distance > 0, point)
            if not self.place.is_line and self._last.get(track, (False,))[0]:
                inside[label] += 1
                if track not in self._has_been_inside:
                    self._has_been_inside.add(track)
                    self._seen[label] += 1
        for track in self._last.keys() - alive:
            del self._last[track]
        self._has_been_inside &= alive
        return Counted(self.place, dict(self._entered), dict(self._left), dict(inside), dict(self._seen))

    def _settle(self, track: int, label: int, side: bool, point: Point) -> None:
        """Count where the side is another than that of the last time."""
        before = self._last.get(track)
        self._last[track] = side, point
        if before is None or before[0] == side:
            return
        if self.place.is_line and not _cross(before[1], point, self.place.points):
            return  # it went around the line's end
        (self._entered if side else self._left)[label] += 1

    def _zone_distance(self, point: Point) -> float:
        """Pixels to the zone's border, above 0 inside."""
        edges = list(zip(self.place.points, (*self.place.points[1:], self.place.points[0]), strict=True))
        nearest = min(_segment_distance(point, *edge) for edge in edges)
        return nearest if _is_inside(point, edges) else -nearest


def anchor_of(box: Sequence[float], anchor: Anchor) -> Point:
    left, top, right, bottom = box
    return (left + right) / 2, bottom if anchor == "bottom" else (top + bottom) / 2


def _line_distance(point: Point, line: Sequence[Point]) -> float:
    """Pixels to the line without its ends, above 0 on its right as one looks along it (with y pointing down)."""
    start, end = line
    return _turn(start, end, point) / math.dist(start, end)


def _cross(start: Point, end: Point, line: Sequence[Point]) -> bool:
    """Whether a way whose ends lie on different sides of a line passes between the line's own ends."""
    return _turn(start, end, line[0]) * _turn(start, end, line[1]) <= 0


def _turn(start: Point, end: Point, point: Point) -> float:
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def _segment_distance(point: Point, start: Point, end: Point) -> float:
    along = (end[0] - start[0], end[1] - start[1])
    way = (point[0] - start[0]) * along[0] + (point[1] - start[1]) * along[1]
    share = min(1.0, max(0.0, way / (along[0] ** 2 + along[1] ** 2)))
    return math.dist(point, (start[0] + share * along[0], start[1] + share * along[1]))


def _is_inside(point: Point, edges: Sequence[tuple[Point, Point]]) -> bool:
    """By the number of edges to the right of the point, odd inside."""
    x, y = point
    inside = False
    for (x1, y1), (x2, y2) in edges:
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            inside = not inside
    return inside
