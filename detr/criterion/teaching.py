"""What a student learns from a larger network's answers for the same images (distillation, Hinton et al. 2015).

As in DETRDistill (Chang et al. 2023, section 3.1) the teacher's queries are matched to the student's by the cost that
targets are matched by, in each decoder layer; here only the queries that the teacher is sure of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from detr.config import Config
from detr.criterion import losses
from detr.criterion.criterion import at_least_1, means_over_processes
from detr.criterion.heads import RTDETR_SUFFIXES, finite, matched_heads, precise_enough
from detr.criterion.matcher import match
from detr.criterion.terms import CriterionConfig
from detr.criterion.truth import Truth
from detr.records import Output, Predictions


class TeachingConfig(Config):
    weight: float = Field(default=1.0, gt=0)  # of all that the teacher says, beside what the targets say
    conf: float = Field(default=0.3, ge=0, le=1)  # the score from which on the teacher is listened to
    temperature: float = Field(default=1.0, gt=0)  # logits of both are divided by it: above 1, small scores count more


class Teaching:
    """`teaching(output, answers, kept, num_targets)` -> weighted losses, each summed over the student's decoder layers.

    `matches` are the classes that both know, the student's index -> the teacher's, and slots where their logits lie.
    Each pair counts as much as the teacher is sure of it. Sums are divided by the number of targets as in `Criterion`,
    so that they weigh alike in any piece and process. Reads from the device once, to match.
    """

    def __init__(
        self,
        config: TeachingConfig,
        criterion: CriterionConfig,
        matches: Mapping[int, int],
        *,
        slots: Sequence[int],
        teachers_slots: Sequence[int],
    ) -> None:
        self.config, self.criterion = config, criterion
        self.slots = torch.tensor([slots[index] for index in matches])  # [K] of the classes that both know
        self.teachers = torch.tensor([teachers_slots[index] for index in matches.values()])  # [K]

    def sure(self, answers: Predictions) -> Tensor:
        """[B, Q] True for what the teacher is sure of, on the device."""
        return self._shared(answers.logits).sigmoid().amax(-1) >= self.config.conf

    def __call__(
        self, output: Output, answers: Predictions, kept: NDArray[np.bool_], num_targets: int, *, epoch: int
    ) -> dict[str, Tensor]:
        """`kept` is what `sure` says, on the host."""
        with torch.autocast(answers.boxes.device.type, enabled=False):
            return self._losses(output, answers, kept, num_targets, epoch)

    def _losses(
        self, output: Output, answers: Predictions, kept: NDArray[np.bool_], num_targets: int, epoch: int
    ) -> dict[str, Tensor]:
        dtype = precise_enough(output)
        truth, wanted, sure = self._kept(answers, kept, dtype)
        heads = [finite(head) for head in matched_heads(output, RTDETR_SUFFIXES, dtype)[: len(output.layers)]]
        (normaliser,) = means_over_processes([num_targets], truth.boxes)
        sums = [torch.zeros((), dtype=dtype, device=wanted.device)] * 3
        for head, pairs in zip(heads, match(heads, truth, self.criterion.matcher, epoch=epoch), strict=True):
            place, weights = (pairs.images, pairs.queries), sure[pairs.targets]
            boxes, others = head.boxes[place], truth.boxes[pairs.targets]
            said = soft_cross_entropy(head.logits[place][:, self.slots], wanted[pairs.targets], self.config.temperature)
            apart = (said, losses.l1(boxes, others), losses.giou(boxes, others))
            sums = [total + (weights * each).sum() for total, each in zip(sums, apart, strict=True)]
        own = self.criterion
        factors = own.class_weight, own.l1_weight, own.giou_weight
        scale = self.config.weight / at_least_1(normaliser)
        names = ("loss_teacher_class", "loss_teacher_bbox", "loss_teacher_giou")
        return {name: factor * total * scale for name, factor, total in zip(names, factors, sums, strict=True)}

    def _kept(self, answers: Predictions, kept: NDArray[np.bool_], dtype: torch.dtype) -> tuple[Truth, Tensor, Tensor]:
        """What the teacher is sure of, as targets; its logits [T, K] for the classes that both know; scores [T]."""
        rows = torch.from_numpy(np.stack(np.nonzero(kept))).to(answers.logits.device, non_blocking=True)
        images, queries = rows
        logits = self._shared(answers.logits)[images, queries].to(dtype)
        scores, best = logits.sigmoid().max(-1)
        slots = self.slots[best]
        counts = tuple(kept.sum(1).tolist())
        truth = Truth(images, slots, slots, answers.boxes[images, queries].to(dtype), counts, tuple(range(len(counts))))
        return truth, logits, scores

    def _shared(self, logits: Tensor) -> Tensor:
        """The teacher's, of the classes that both know, in float32 at least."""
        if self.slots.device != logits.device:
            self.slots, self.teachers = (
                each.to(logits.device, non_blocking=True) for each in (self.slots, self.teachers)
            )
        return logits[..., self.teachers].to(torch.promote_types(logits.dtype, torch.float32))


def soft_cross_entropy(logits: Tensor, teachers: Tensor, temperature: float = 1.0) -> Tensor:
    """[N, K] logits of both -> [N]: how far the student's probabilities are from the teacher's, 0 where they agree.

    The binary cross-entropy of each class less the teacher's own, times the temperature's square, which keeps the
    gradients as large as they are without one (Hinton et al. 2015, section 2).
    """
    wanted = (teachers / temperature).sigmoid()
    each = binary_cross_entropy_with_logits(logits / temperature, wanted, reduction="none")
    least = binary_cross_entropy_with_logits(teachers / temperature, wanted, reduction="none")
    return temperature**2 * (each - least).sum(-1)
