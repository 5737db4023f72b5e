"""Pictures that are there more than once, in one split or in two: by fingerprint, made sure by thumbnail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from detr.data.doctor_images import THUMBNAIL, Look

# Of 128 photographs of COCO, saved at qualities 30 to 85 and at 0.3 to 1.7 times their size, 99 % stay within these; no
# two different ones come nearer than 12 bits and a mean of 18.
_MOST_BITS = 3  # by which the fingerprints of one picture differ
_MOST_MEAN, _MOST_CELL = 4.0, 16  # grey values by which its thumbnails differ; more in one cell: something has moved

_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def repeats(looks: Sequence[Look]) -> list[list[int]]:
    """Groups of two or more that show the same picture, each in order; images that can't be read are in none."""
    usable = np.array([i for i, look in enumerate(looks) if look.thumbnail is not None], np.int64)
    if not len(usable):
        return []
    prints = np.array([looks[i].fingerprint for i in usable], np.uint64)
    cells = THUMBNAIL * THUMBNAIL
    thumbnails = np.array([looks[i].thumbnail for i in usable], np.int16).reshape(-1, cells)
    group_of = list(range(len(usable)))
    for one, other in _alike(prints, thumbnails):
        group_of[_root(group_of, other)] = _root(group_of, one)
    groups: dict[int, list[int]] = defaultdict(list)
    for place, index in enumerate(usable.tolist()):
        groups[_root(group_of, place)].append(index)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _alike(prints: NDArray[np.uint64], thumbnails: NDArray[np.int16]) -> Iterator[tuple[int, int]]:
    """Pairs that show the same, as many as connect all that do. Fingerprints that differ in three bits at most have at
    least one of four quarters in common."""
    for quarter in range(4):
        keys = (prints >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=np.uint64(1 << 20)))
        for members in np.split(order, starts[1:]):
            if len(members) > 1:
                yield from _connected(members, prints, thumbnails)


def _connected(
    left: NDArray[np.int64], prints: NDArray[np.uint64], thumbnails: NDArray[np.int16]
) -> Iterator[tuple[int, int]]:
    """Each is compared with those that none was found alike to yet: frames of one camera may be one picture."""
    waiting: list[int] = []
    while len(left):
        if not waiting:
            waiting, left = [int(left[0])], left[1:]
        one = waiting.pop()
        is_near = _same(one, left, prints, thumbnails)
        waiting += left[is_near].tolist()
        yield from ((one, other) for other in left[is_near].tolist())
        left = left[~is_near]


def _same(
    one: int, others: NDArray[np.int64], prints: NDArray[np.uint64], thumbnails: NDArray[np.int16]
) -> NDArray[np.bool_]:
    apart = prints[others] ^ prints[one]
    bits = sum(_ONES[(apart >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)] for quarter in range(4))
    result = np.asarray(bits <= _MOST_BITS)
    cells = np.abs(thumbnails[others[result]] - thumbnails[one])
    result[result] = (cells.mean(1) <= _MOST_MEAN) & (cells.max(1) <= _MOST_CELL)
    return result


def _root(group_of: list[int], place: int) -> int:
    while group_of[place] != place:
        group_of[place] = group_of[group_of[place]]
        place = group_of[place]
    return place
