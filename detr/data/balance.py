"""Repeat-factor sampling (Gupta et al. 2019, LVIS): images of rare classes come more than once an epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.errors import counted

_ROUND = 6  # keeps the draws apart from those of the loader


def repeat_factors(annotations: Annotations, threshold: float) -> NDArray[np.float64]:
    """[I] how often each image is to come in an epoch, on average: that of its rarest class, at least once.

    A class that a part f of all images has wants sqrt(threshold / f), 1 from f = threshold on. Crowds don't count.
    """
    count, known = len(annotations.image_ids), ~annotations.crowd
    there = np.zeros((count, len(annotations.classes)), dtype=bool)
    there[annotations.image_indices[known], annotations.labels[known]] = True
    shares = there.sum(0) / max(1, count)
    of_class = np.sqrt(threshold / np.where(shares > 0, shares, threshold))
    return np.where(there, of_class, 1.0).max(1, initial=1.0)


def repeated(factors: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The views of an epoch: image i, and i + n * I for its n-th repetition; floor(sum(factors)) of them.

    Every factor is rounded down or up at random, up as often as it lies above the whole number, all by one draw
    (systematic sampling in a drawn order): so the length of an epoch, which the schedule counts on, doesn't vary. Where
    the sum is no whole number, one repetition is left out now and then.
    """
    draws = np.random.default_rng([_ROUND, seed, epoch])
    order = draws.permutation(len(factors))
    whole = np.floor(factors).astype(np.int64)
    ends = np.concatenate([[0.0], np.cumsum((factors - whole)[order])]) + draws.random()
    times = whole.copy()
    times[order] += np.diff(np.floor(ends)).astype(np.int64)
    images = np.repeat(np.arange(len(factors)), times)
    first = np.repeat(np.cumsum(times) - times, times)
    views = images + (np.arange(len(images)) - first) * len(factors)
    if len(views) == _length(factors):
        return views
    return np.delete(views, draws.choice(np.flatnonzero(views >= len(factors))))


def epoch_length(annotations: Annotations, threshold: float | None) -> int:
    """How many images an epoch shows."""
    return len(annotations.image_ids) if threshold is None else _length(repeat_factors(annotations, threshold))


def words_on_balance(annotations: Annotations, threshold: float) -> str:
    """What balancing does, in a line."""
    factors = repeat_factors(annotations, threshold)
    most = int(factors.argmax())
    return (
        f"balanced: {counted(len(factors), 'image is', 'images are')} {_length(factors):,} an epoch; "
        f"{int((factors > 1).sum()):,} come more than once, {annotations.file_names[most]} {factors[most]:.1f} times"
    )


def _length(factors: NDArray[np.float64]) -> int:
    return int(np.floor(factors.sum() + 1e-9))
