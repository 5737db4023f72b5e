"""The targets of a batch in one row, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detr.errors import InputError
from detr.records import Target

_TOLERANCE = 1e-3  # how far a coordinate may lie outside [0, 1]: rounding, not another unit


@dataclass(frozen=True, eq=False)
class Truth:
    """All targets of a batch, one after the other: `T` of them."""

    images: Tensor  # [T] int64, the place in the batch of the image each belongs to
    labels: Tensor  # [T] int64, the classes as users number them
    slots: Tensor  # [T] int64, where in the logits each class lies
    boxes: Tensor  # [T, 4] cxcywh in [0, 1]
    counts: tuple[int, ...]  # B, how many targets each image has
    image_ids: tuple[int | str, ...]  # B

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def starts(self) -> list[int]:
        """Where each image's targets begin in the row."""
        return [sum(self.counts[:image]) for image in range(len(self.counts))]

    def as_one_class(self) -> Truth:
        """The same with all targets in the first slot: objects, of whatever class."""
        return replace(self, slots=torch.zeros_like(self.slots))


def in_one_row(
    targets: Sequence[Target], *, device: torch.device, dtype: torch.dtype, slots: Tensor | None = None
) -> Truth:
    """The targets of a batch as one `Truth`; InputError for shapes and types that cannot be right.

    `slots` [C] says where in the logits each class lies; None: where its label says. Waits for no device: values are
    looked at by `faults`, and labels out of range are taken for the nearest class until then.
    """
    for place, target in enumerate(targets):
        _require_shapes(target, place)
    if not targets:
        raise InputError("a batch of targets is empty; expected one Target for each image")
    rows = [target.labels.to(device, torch.int64, non_blocking=True) for target in targets]
    labels = torch.cat(rows)
    return Truth(
        images=torch.cat([torch.full_like(row, place) for place, row in enumerate(rows)]),
        labels=labels,
        slots=labels if slots is None else slots[labels.clamp(0, len(slots) - 1)],
        boxes=torch.cat([target.boxes.to(device, dtype, non_blocking=True) for target in targets]),
        counts=tuple(len(target.labels) for target in targets),
        image_ids=tuple(target.image_id for target in targets),
    )


def faults(truth: Truth, num_classes: int) -> Tensor:
    """[T] bool on the device: which targets no loss may see."""
    label_fits = (truth.labels >= 0) & (truth.labels < num_classes)
    # A comparison with NaN is false, so this asks for finite values too.
    box_fits = ((truth.boxes >= -_TOLERANCE) & (truth.boxes <= 1 + _TOLERANCE)).all(-1)
    return ~(label_fits & box_fits)


def refuse(truth: Truth, index: int, num_classes: int) -> InputError:
    """Why the target at `index` of the row is refused. Reads it from the device."""
    image = int(truth.images[index])
    label = int(truth.labels[index])
    box = [round(value, 4) for value in truth.boxes[index].tolist()]
    where = f"target {index - truth.starts[image]} of image {truth.image_ids[image]!r}"
    if not 0 <= label < num_classes:
        return InputError(f"{where}: label {label} is not in 0..{num_classes - 1}")
    return InputError(f"{where}: box {box} is not centre, width and height in [0, 1] (cxcywh, relative to the image)")


def _require_shapes(target: Target, place: int) -> None:
    labels, boxes = target.labels, target.boxes
    where = f"targets of image {target.image_id!r} (number {place} of the batch)"
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"{where}: labels are {labels.dtype} {list(labels.shape)}, expected whole numbers [N]")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise InputError(f"{where}: boxes are {boxes.dtype} {list(boxes.shape)}, expected floating point [N, 4]")
    if len(labels) != len(boxes):
        raise InputError(f"{where}: {len(labels)} labels for {len(boxes)} boxes")
