"""The typed records that travel between the rooms.

Shape letters of the house: `B` batch, `Q` queries, `C` classes, `D` channels, `M` heads, `L` levels, `P` points,
`S` positions of all levels, `N` targets of an image, `R` edge bins; lower-case `h, w` are sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Target:
    """What is to be found in one image."""

    labels: Tensor  # [N] int64, 0-based class indices
    boxes: Tensor  # [N, 4] cxcywh in [0, 1]
    image_id: int | str = -1  # as in the annotation file
    size: tuple[int, int] = (0, 0)  # (height, width) of the image on disk, upright

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Target:
        """The same on another device."""
        return replace(
            self,
            labels=self.labels.to(device, non_blocking=non_blocking),
            boxes=self.boxes.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training or evaluation step sees."""

    images: Tensor  # [B, C, h, w] uint8, a quarter of the way to the device (`image.as_input`), or float32 for it
    padding: Tensor | None  # [B, h, w] True where there is no image; None when all fill the frame
    targets: list[Target]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same on another device."""
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            None if self.padding is None else self.padding.to(device, non_blocking=non_blocking),
            [target.to(device, non_blocking) for target in self.targets],
        )

    def share_memory(self) -> Batch:
        """The same in memory that other processes may see; RuntimeError where there is too little."""
        targets = [(target.labels, target.boxes) for target in self.targets]
        for tensor in (self.images, *([] if self.padding is None else [self.padding]), *chain(*targets)):
            tensor.share_memory_()
        return self

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU copies from directly."""
        return Batch(
            self.images.pin_memory(),
            None if self.padding is None else self.padding.pin_memory(),
            [replace(t, labels=t.labels.pin_memory(), boxes=t.boxes.pin_memory()) for t in self.targets],
        )


@dataclass(frozen=True, eq=False)
class Edges:
    """How far each edge of a box lies from where it started, as a distribution over bins (D-FINE, section 3.1)."""

    logits: Tensor  # [B, Q, 4, R] of the left, upper, right and lower edge
    start: Tensor  # [B, Q, 4] cxcywh in [0, 1], the boxes that the distributions move; without gradient


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one decoder layer says of each query."""

    logits: Tensor  # [B, Q, C], in the network's own slots (see `DetectionNetwork.scoring`)
    boxes: Tensor  # [B, Q, 4] cxcywh in [0, 1]
    edges: Edges | None = None  # where boxes come from distributions


@dataclass(frozen=True, eq=False)
class Denoising:
    """The predictions for noised targets, and which target each of them is a noised copy of."""

    layers: tuple[Predictions, ...]
    queries: tuple[Tensor, ...]  # per image: [K] indices of the positive noised queries
    targets: tuple[Tensor, ...]  # per image: [K] index of the target each of them came from
    num_groups: int
    start: Predictions | None = None  # as in `Output`


@dataclass(frozen=True, eq=False)
class Output:
    """The answer of a network: one `Predictions` per decoder layer, the last one counts."""

    layers: tuple[Predictions, ...]
    proposals: Predictions | None = None  # the encoder's selected boxes (two-stage models)
    denoising: Denoising | None = None
    start: Predictions | None = None  # the boxes that the edges of all layers start from, with gradient


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, in that image's own pixels, best first."""

    boxes: Tensor  # [N, 4] xyxy in pixels
    scores: Tensor  # [N] in [0, 1]
    labels: Tensor  # [N] int64, 0-based class indices
    track_ids: Tensor | None = None  # [N] int64

    def __len__(self) -> int:
        return len(self.scores)


for _record in (Edges, Predictions, Denoising, Output):  # what networks answer with, known to recorders of graphs
    torch.export.register_dataclass(_record)
