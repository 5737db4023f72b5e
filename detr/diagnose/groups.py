"""Which objects are missed: by their size, by how crowded they stand, by how many there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.evaluation.metrics import AREA_RANGES
from detr.evaluation.overlaps import overlapping

_CROWDING = {"no other object touches it": 0.0, "IoU with another up to 0.3": 0.3, "IoU with another above 0.3": 1.01}
_COUNTS = {"1": 1, "2 to 5": 5, "6 to 20": 20, "21 and more": np.inf}


@dataclass(frozen=True)
class Group:
    kind: str
    name: str
    objects: int
    found: int

    @property
    def recall(self) -> float | None:
        return self.found / self.objects if self.objects else None


def groups(annotations: Annotations, found: NDArray[np.bool_]) -> list[Group]:
    """How many objects of each kind there are, crowds apart, and how many of them are found; `found` [A]."""
    plain = np.flatnonzero(~annotations.crowd)
    areas = annotations.areas[plain]
    sizes = {
        name: (areas > low if name != "small" else areas >= low) & (areas <= high)
        for name, (low, high) in AREA_RANGES.items()
        if name != "all"
    }
    images = annotations.image_indices[plain]
    pairs = overlapping(annotations.boxes[plain], images, annotations.boxes[plain], images)
    others = pairs.where(pairs.first != pairs.second)
    nearest = np.zeros(len(plain))
    np.maximum.at(nearest, others.first, others.iou)
    together = np.bincount(images, minlength=len(annotations.image_ids))[images]
    members = {
        "size": sizes,
        "crowding": _between(nearest, _CROWDING),
        "objects in the image": _between(together.astype(float), _COUNTS),
    }
    return [
        Group(kind, name, int(inside.sum()), int((inside & found[plain]).sum()))
        for kind, parts in members.items()
        for name, inside in parts.items()
    ]


def _between(values: NDArray[np.float64], ends: dict[str, float]) -> dict[str, NDArray[np.bool_]]:
    """Which values lie up to each end and above the one before."""
    low, parts = -np.inf, {}
    for name, high in ends.items():
        parts[name] = (values > low) & (values <= high)
        low = high
    return parts
