"""Contrastive denoising (Zhang et al. 2023, section 3.3): noised targets as extra queries of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detr.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from detr.layers.attention import groups_apart
from detr.layers.position import inverse_sigmoid
from detr.records import Target


@dataclass(frozen=True, eq=False)
class Noised:
    """K noised copies of the targets: in each group a positive and then a negative copy of all."""

    labels: Tensor  # [B, K] int64; the number of classes where an image has fewer targets than the fullest
    boxes: Tensor  # [B, K, 4] logits of cxcywh
    queries: tuple[Tensor, ...]  # per image: which of the K are positive copies of a target
    targets: tuple[Tensor, ...]  # per image: of which target
    num_groups: int


class ContrastiveDenoising(nn.Module):
    """Makes noised queries of the targets, about `num_denoising` positive ones for each image.

    Negative copies may end up with their corners the wrong way round. They have no size then, or with `turned`
    (D-FINE) are the boxes between these corners. Places without a target have the embedding of no class and a box of no
    size in the corner of the image, or with `filled` (DINO) no content and a box of a quarter in the middle. `slots`
    says which row of `num_classes` belongs to each label; None: they are numbered alike. `eps` as in `inverse_sigmoid`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        num_denoising: int,
        label_noise: float,
        box_noise: float,
        turned: bool = False,
        filled: bool = False,
        slots: Sequence[int] | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_denoising = num_classes, num_denoising
        self.label_noise, self.box_noise, self.turned = label_noise, box_noise, turned
        self.filled, self.eps = filled, eps
        self.slots: Tensor | None
        self.register_buffer("slots", None if slots is None else torch.tensor(slots), persistent=False)
        self.class_embedding = nn.Embedding(num_classes + 1, channels, padding_idx=num_classes)

    def forward(self, targets: Sequence[Target], num_matching: int) -> tuple[Tensor, Tensor, Tensor, Noised] | None:
        """Content [B, K, D], boxes [B, K, 4] logits, mask [K + Q, K + Q] for the attention, and what they are.

        None when no image has a target.
        """
        noised = self.noise(targets)
        if noised is None:
            return None
        group = noised.labels.shape[1] // noised.num_groups
        mask = groups_apart(noised.num_groups, group, num_matching, noised.labels.device)
        content = self.class_embedding(noised.labels)
        if self.filled:
            content = content.masked_fill(noised.labels[..., None] == self.num_classes, 0)
        return content, noised.boxes, mask, noised

    def unused(self) -> Tensor:
        """Zero, but a function of the parameters: ranks with and without targets then have equal graphs under DDP."""
        return 0.0 * self.class_embedding.weight.sum()

    @torch.no_grad()
    def noise(self, targets: Sequence[Target]) -> Noised | None:
        """Draws in the official order: which labels, their new values, signs of the box noise, its amount."""
        counts = [len(target.labels) for target in targets]
        most = max(counts, default=0)
        if most == 0:
            return None
        device = targets[0].labels.device
        num_groups = max(1, self.num_denoising // most)
        slots = [self._slots(target.labels) for target in targets]
        labels = pad_sequence(slots, batch_first=True, padding_value=self.num_classes)
        boxes = pad_sequence([target.boxes for target in targets], batch_first=True)
        labels, boxes = labels.repeat(1, 2 * num_groups), boxes.repeat(1, 2 * num_groups, 1)
        negative = (torch.arange(2 * most, device=device) >= most).repeat(num_groups)[:, None]

        if self.label_noise > 0:
            changed = torch.rand(labels.shape, device=device) < self.label_noise * 0.5
            others = torch.randint(0, self.num_classes, labels.shape, device=device)
            labels = torch.where(changed & (labels != self.num_classes), others, labels)
        if self.box_noise > 0:
            boxes = self._moved(boxes, negative)
        boxes = inverse_sigmoid(boxes, self.eps)
        if self.filled:
            boxes = boxes.masked_fill(labels[..., None] == self.num_classes, 0)

        steps = torch.arange(num_groups, device=device)[:, None] * 2 * most
        own = [torch.arange(count, device=device) for count in counts]
        return Noised(
            labels,
            boxes,
            tuple((steps + each).flatten() for each in own),
            tuple(each.repeat(num_groups) for each in own),
            num_groups,
        )

    def _slots(self, labels: Tensor) -> Tensor:
        return labels if self.slots is None else self.slots[labels]

    def _moved(self, boxes: Tensor, negative: Tensor) -> Tensor:
        """Corners move by up to half a side, those of negative copies by half a side to a whole one."""
        reach = boxes[..., 2:].repeat(1, 1, 2) * 0.5 * self.box_noise
        sign = torch.randint_like(boxes, 0, 2) * 2 - 1
        amount = torch.rand_like(boxes) + negative
        moved = xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + sign * amount * reach).clamp(0, 1))
        return moved.abs() if self.turned else moved
