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
_BLOCK = 1024

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
    for one, other in _alike(prints):
        apart = np.abs(thumbnails[one] - thumbnails[other])
        if apart.mean() <= _MOST_MEAN and apart.max() <= _MOST_CELL:
            group_of[_root(group_of, other)] = _root(group_of, one)
    groups: dict[int, list[int]] = defaultdict(list)
    for place, index in enumerate(usable.tolist()):
        groups[_root(group_of, place)].append(index)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _alike(prints: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Pairs whose fingerprints differ in three bits at most: then at least one of four quarters is the same."""
    for quarter in range(4):
        keys = (prints >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=np.uint64(1 << 20)))
        for members in np.split(order, starts[1:]):
            if len(members) > 1:
                yield from _near(members, prints)


def _near(members: NDArray[np.int64], prints: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    for start in range(0, len(members), _BLOCK):
        block = members[start : start + _BLOCK]
        apart = prints[block][:, None] ^ prints[members[start:]][None]
        bits = sum(_ONES[(apart >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)] for quarter in range(4))
        for row, column in zip(*np.nonzero(np.triu(bits <= _MOST_BITS, 1)), strict=True):
            yield int(block[row]), int(members[start + column])


def _root(group_of: list[int], place: int) -> int:
    while group_of[place] != place:
        group_of[place] = group_of[group_of[place]]
        place = group_of[place]
    return place
