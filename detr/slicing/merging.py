"""What overlapping views of a picture show -> each object once and whole.

Suppressing whatever overlaps (SAHI: Akyon et al. 2022, "Slicing Aided Hyper Inference and Fine-tuning for Small Object
Detection") loses neighbours in a crowd, and a box that a tile's border cut off overlaps little with the whole one. But
we know where the borders are: **two views show the same object if they agree on all that both can see of it**.

1. A box within a few pixels of a border that its tile has inside the picture is *cut* there: the object may go on.
2. Two boxes of one class from two views agree if their IoU is at least 0.5, where each is first cut down to what the
   other's view shows of it, on the sides on which that other box is cut, and where a view that is scaled down is taken
   to be no more exact than its own pixels are. Between two views they are paired one to one,
   the best agreement of the best scored first: boxes of one view are never merged, as a DETR says each object once.
3. Pairs make groups, at most one box of each view in a group. A group's box is its best scored one among those that
   are cut nowhere; if all are, the smallest box around the pieces. Its score is the highest of the group.
4. Pieces that found no partner, because their box was too rough, are left out where half of them lies in a box that
   goes on over the border they are cut at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detr.records import Detections
from detr.slicing.views import View

AGREED = 0.5  # IoU from which two views are taken to show the same object
COVERED = 0.5  # share of a piece that must lie in another box for it to be a part of that

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]


def merged(
    found: Sequence[Detections],
    views: Sequence[View],
    *,
    size: tuple[int, int],
    most: int,
    coarseness: Sequence[float] | None = None,
) -> Detections:
    """The detections of each view, in its own pixels -> the `most` best of the picture of (height, width), best first.

    coarseness: how many pixels of the picture one of the network's input is, in each view; 1 where it isn't given.

    What a single view of the whole shows comes out as it is. All is on the CPU. Boxes may reach over the picture's
    border; on a tile's border inside the picture they end.
    """
    if len(views) == 1 and views[0].size == size:
        return found[0]
    seen = _Seen.of(found, views, size, [1.0] * len(views) if coarseness is None else coarseness)
    groups = _grouped(seen)
    boxes = np.array([_box_of(seen, group) for group in groups]).reshape(-1, 4)
    scores = np.array([seen.scores[group].max() for group in groups])
    labels = seen.labels[[group[0] for group in groups]]
    kept: list[int] = []
    for number in np.argsort(-scores, kind="stable").tolist():
        if len(kept) < most and not _is_part(groups[number], boxes, labels, seen):
            kept.append(number)
    return Detections(
        torch.from_numpy(boxes[kept]).float(), torch.from_numpy(scores[kept]).float(), torch.from_numpy(labels[kept])
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """All boxes of all views, `K` in number, those of a view together."""

    boxes: Floats  # [K, 4] xyxy in the picture, inside their view but for the picture's own border
    scores: Floats  # [K]
    labels: Indices  # [K]
    bounds: Indices  # [V + 1] the boxes of view v are bounds[v] to bounds[v + 1]
    views: Floats  # [V, 4] xyxy
    blur: Floats  # [V] by how much what is seen may be off
    view_of: Indices  # [K]
    cut: Mask  # [K, 4] on which side each box is
    is_cut: Mask  # [K] on any side

    @classmethod
    def of(
        cls,
        found: Sequence[Detections],
        views: Sequence[View],
        size: tuple[int, int],
        coarseness: Sequence[float],
    ) -> _Seen:
        edges = np.array([(view.left, view.top, view.right, view.bottom) for view in views], np.float64)
        inside = edges != (0, 0, size[1], size[0])
        counts = [len(one) for one in found]
        limits, is_inside = np.repeat(edges, counts, 0), np.repeat(inside, counts, 0)
        boxes = torch.cat([one.boxes for one in found]).double().numpy() + limits[:, [0, 1, 0, 1]]
        low, high = slice(0, 2), slice(2, 4)
        boxes[:, low] = np.where(is_inside[:, low], np.maximum(boxes[:, low], limits[:, low]), boxes[:, low])
        boxes[:, high] = np.where(is_inside[:, high], np.minimum(boxes[:, high], limits[:, high]), boxes[:, high])
        margin = np.maximum(4.0, 0.015 * (limits[:, high] - limits[:, low]))  # boxes end some pixels off the border
        cut: Mask = is_inside & (np.abs(boxes - limits) <= np.tile(margin, 2))
        return cls(
            boxes,
            torch.cat([one.scores for one in found]).double().numpy(),
            torch.cat([one.labels for one in found]).long().numpy(),
            np.cumsum([0, *counts]),
            edges,
            np.maximum(np.array(coarseness) - 1, 0) / 2,
            np.repeat(np.arange(len(views)), counts),
            cut,
            cut.max(1, initial=False),
        )


def _grouped(seen: _Seen) -> list[list[int]]:
    """Indices of the boxes of each object: uncut ones lead a group before cut ones do, then the better scored."""
    partners = _partners(seen)
    grouped = np.zeros(len(seen.scores), bool)
    groups = []
    for head in np.lexsort((-seen.scores, seen.is_cut)).tolist():
        if grouped[head]:
            continue
        grouped[head] = True
        group, views = [head], {int(seen.view_of[head])}
        for member in group:  # grows as we go
            for other in partners.get(member, ()):
                view = int(seen.view_of[other])
                if not grouped[other] and view not in views:
                    grouped[other] = True
                    group.append(other)
                    views.add(view)
        groups.append(group)
    return groups


def _partners(seen: _Seen) -> dict[int, list[int]]:
    """For each box those of other views that show the same, the best agreement first."""
    pairs = [pair for one, other in _meeting(seen) for pair in _paired(seen, one, other)]
    partners: dict[int, list[int]] = {}
    for _, first, second in sorted(pairs, reverse=True):
        partners.setdefault(first, []).append(second)
        partners.setdefault(second, []).append(first)
    return partners


def _meeting(seen: _Seen) -> Iterator[tuple[int, int]]:
    """Pairs of views that share pixels and both show something."""
    low, high = seen.views[:, :2], seen.views[:, 2:]
    filled = np.diff(seen.bounds) > 0
    for one in np.flatnonzero(filled).tolist():
        meets = filled & (np.minimum(high, high[one]) > np.maximum(low, low[one])).all(1)
        yield from ((one, other) for other in np.flatnonzero(meets).tolist() if other > one)


def _paired(seen: _Seen, one: int, other: int) -> Iterator[tuple[float, int, int]]:
    """The pairs between two views, one to one, with how well they agree by place and score."""
    first, second = _within_reach(seen, one, other), _within_reach(seen, other, one)
    rows, columns = np.nonzero(seen.labels[first, None] == seen.labels[None, second])
    firsts, seconds = first[rows], second[columns]
    overlap = _agreement(seen, firsts, seconds)
    agreed = np.flatnonzero(overlap >= AGREED)
    worth = overlap[agreed] * np.sqrt(seen.scores[firsts[agreed]] * seen.scores[seconds[agreed]])
    order = np.argsort(-worth, kind="stable")
    taken: set[int] = set()
    for value, mine, theirs in zip(
        worth[order].tolist(), firsts[agreed[order]].tolist(), seconds[agreed[order]].tolist(), strict=True
    ):
        if mine not in taken and theirs not in taken:
            taken |= {mine, theirs}
            yield value, mine, theirs


def _within_reach(seen: _Seen, one: int, other: int) -> Indices:
    """Of the boxes of a view those that another view might see."""
    boxes = seen.boxes[seen.bounds[one] : seen.bounds[one + 1]]
    blur, view = max(seen.blur[one], seen.blur[other]), seen.views[other]
    meets = (boxes[:, :2] < view[2:] + blur).all(1) & (boxes[:, 2:] > view[:2] - blur).all(1)
    return np.flatnonzero(meets) + seen.bounds[one]


def _agreement(seen: _Seen, firsts: Indices, seconds: Indices) -> Floats:
    """[P] IoU of pairs of boxes, each as far as the view of the other can see it."""
    ours, theirs = _as_seen_by_other(seen, firsts, seconds), _as_seen_by_other(seen, seconds, firsts)
    visible = (_area(ours[:, :2], ours[:, 2:]) > 0) & (_area(theirs[:, :2], theirs[:, 2:]) > 0)
    blur = np.maximum(seen.blur[seen.view_of[firsts]], seen.blur[seen.view_of[seconds]])
    grown = blur[:, None] * np.array([-1, -1, 1, 1])
    ours, theirs = ours + grown, theirs + grown
    shared = _area(np.maximum(ours[:, :2], theirs[:, :2]), np.minimum(ours[:, 2:], theirs[:, 2:]))
    union = _area(ours[:, :2], ours[:, 2:]) + _area(theirs[:, :2], theirs[:, 2:]) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=visible)


def _as_seen_by_other(seen: _Seen, ours: Indices, theirs: Indices) -> Floats:
    """[P, 4] boxes that end at the other's view on the sides on which the box there is cut."""
    boxes, views, cut = seen.boxes[ours], seen.views[seen.view_of[theirs]], seen.cut[theirs]
    low = np.where(cut[:, :2], np.maximum(boxes[:, :2], views[:, :2]), boxes[:, :2])
    high = np.where(cut[:, 2:], np.minimum(boxes[:, 2:], views[:, 2:]), boxes[:, 2:])
    return np.concatenate([low, high], 1)


def _box_of(seen: _Seen, group: list[int]) -> Floats:
    """[4] of a group, whose first is its best uncut one if there is any."""
    if not seen.is_cut[group[0]]:
        return seen.boxes[group[0]]
    boxes = seen.boxes[group]
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _is_part(group: list[int], boxes: Floats, labels: Indices, seen: _Seen) -> bool:
    """Whether a lone piece, which no other view agrees with, is a part of one of all these boxes."""
    lone = group[0]
    if len(group) > 1 or not seen.is_cut[lone]:
        return False
    piece, view = seen.boxes[lone], seen.views[seen.view_of[lone]]
    goes_on = np.concatenate([boxes[:, :2] < view[:2], boxes[:, 2:] > view[2:]], 1) & seen.cut[lone]
    inside = _area(np.maximum(boxes[:, :2], piece[:2]), np.minimum(boxes[:, 2:], piece[2:]))
    covered = inside >= COVERED * _area(piece[:2], piece[2:])
    return bool((covered & goes_on.any(1) & (labels == seen.labels[lone])).any())


def _area(low: Floats, high: Floats) -> Floats:
    """The area between two corners [..., 2], 0 where there is none."""
    sides = np.maximum(high - low, 0)
    return np.asarray(sides[..., 0] * sides[..., 1])
