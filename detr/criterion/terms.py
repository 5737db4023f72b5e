"""The parts of a criterion: what each head's queries, with the targets they answer for, cost.

Each part is called with a head and its assignment and gives weighted, normalised losses by their official names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy, iou
from detr.config import Config
from detr.criterion import losses
from detr.criterion.fine_grained import decoupled_mean, distillation, fgl
from detr.criterion.heads import Head
from detr.criterion.matcher import MatcherConfig, Pairs
from detr.criterion.truth import Truth
from detr.layers.edges import bin_positions, edges_from_boxes
from detr.records import Edges, Predictions


class CriterionConfig(Config):
    """Losses and their weights; by default those of RT-DETR (Zhao et al. 2024, DETRs Beat YOLOs, section 4.3)."""

    classification: Literal["varifocal", "focal", "mal", "cross_entropy"] = "varifocal"
    class_weight: NonNegativeFloat = 1.0
    l1_weight: NonNegativeFloat = 5.0
    giou_weight: NonNegativeFloat = 2.0
    fgl_weight: NonNegativeFloat = 0.0  # this and ddf only for networks whose boxes are distributions (D-FINE)
    ddf_weight: NonNegativeFloat = 0.0
    alpha: NonNegativeFloat = 0.75  # of varifocal and focal
    gamma: NonNegativeFloat = 2.0  # of all class losses but cross-entropy
    no_object_weight: PositiveFloat = 0.1  # of cross-entropy
    giou_epsilon: NonNegativeFloat = 0.0  # added to the areas that GIoU divides by
    union: bool = False  # box losses over the pairs that any head found, not each head's own (D-FINE)
    matcher: MatcherConfig = MatcherConfig()


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which queries of a head answer for which targets. Numbers are averages over all processes."""

    pairs: Pairs
    truth: Truth
    normaliser: Tensor | float  # what sums are divided by: the number of targets, at least 1
    num_matched: Tensor | float  # the number of pairs
    balance: tuple[Tensor | float, Tensor | float]  # matched and other queries of the last decoder layer

    @property
    def place(self) -> tuple[Tensor, Tensor]:
        """Image and query of each pair."""
        return self.pairs.images, self.pairs.queries

    @property
    def boxes(self) -> Tensor:
        """[K, 4] the wanted ones."""
        return self.truth.boxes[self.pairs.targets]

    @property
    def slots(self) -> Tensor:
        """[K] the wanted ones."""
        return self.truth.slots[self.pairs.targets]

    @property
    def cell(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image, query and wanted slot of each pair."""
        return self.pairs.images, self.pairs.queries, self.slots

    def overlap(self, head: Head) -> Tensor:
        """[K] IoU of the head's boxes with the wanted ones, without gradient."""
        return iou(cxcywh_to_xyxy(head.boxes[self.place].detach()), cxcywh_to_xyxy(self.boxes))[0]


Part = Callable[[Head, Assignment], dict[str, Tensor]]


class ClassLoss:
    """Every query is told which class to say, or to say none."""

    def __init__(self, config: CriterionConfig, name: str) -> None:
        self.config, self.name = config, name
        self.loss = {
            "varifocal": self._varifocal,
            "focal": self._focal,
            "mal": self._matchability_aware,
            "cross_entropy": self._cross_entropy,
        }[config.classification]

    def __call__(self, head: Head, assignment: Assignment) -> dict[str, Tensor]:
        return {self.name: self.config.class_weight * self.loss(head, assignment)}

    def _varifocal(self, head: Head, assignment: Assignment) -> Tensor:
        positive, quality = _marked(head, assignment), _qualities(head, assignment)
        each = losses.varifocal(head.logits, positive, quality, alpha=self.config.alpha, gamma=self.config.gamma)
        return each.sum() / assignment.normaliser

    def _matchability_aware(self, head: Head, assignment: Assignment) -> Tensor:
        positive, quality = _marked(head, assignment), _qualities(head, assignment)
        each = losses.matchability_aware(head.logits, positive, quality, gamma=self.config.gamma)
        return each.sum() / assignment.normaliser

    def _focal(self, head: Head, assignment: Assignment) -> Tensor:
        positive = _marked(head, assignment)
        each = losses.focal(head.logits, positive, alpha=self.config.alpha, gamma=self.config.gamma)
        return each.sum() / assignment.normaliser

    def _cross_entropy(self, head: Head, assignment: Assignment) -> Tensor:
        """The mean over all queries by their weights: the number of targets has no part in it."""
        slots = torch.full(head.logits.shape[:2], head.logits.shape[-1] - 1, device=head.logits.device)
        slots[assignment.place] = assignment.slots
        each = losses.cross_entropy(head.logits, slots, no_object_weight=self.config.no_object_weight)
        others = slots.numel() - assignment.num_matched
        return each.sum() / (assignment.num_matched + self.config.no_object_weight * others)


class BoxLosses:
    """Each matched box is drawn to its target."""

    def __init__(self, config: CriterionConfig) -> None:
        self.config = config

    def __call__(self, head: Head, assignment: Assignment) -> dict[str, Tensor]:
        boxes, wanted = head.boxes[assignment.place], assignment.boxes
        l1, giou = losses.l1(boxes, wanted), losses.giou(boxes, wanted, epsilon=self.config.giou_epsilon)
        return {
            "loss_bbox": self.config.l1_weight * l1.sum() / assignment.normaliser,
            "loss_giou": self.config.giou_weight * giou.sum() / assignment.normaliser,
        }


class EdgeLosses:
    """Matched edges are drawn to the bins of their targets, and those of every layer to the last layer's."""

    def __init__(self, config: CriterionConfig, *, scale: float, up: float) -> None:
        self.config, self.scale, self.up = config, scale, up

    def __call__(self, head: Head, assignment: Assignment) -> dict[str, Tensor]:
        if head.edges is None:
            return {}
        quality = assignment.overlap(head)
        result = {"loss_fgl": self.config.fgl_weight * self._fgl(head.edges, assignment, quality)}
        if head.teacher is not None and head.teacher.edges is not None:
            result["loss_ddf"] = self.config.ddf_weight * self._ddf(head.edges, head.teacher, assignment, quality)
        return result

    def _fgl(self, edges: Edges, assignment: Assignment, quality: Tensor) -> Tensor:
        start = edges.start[assignment.place].detach()
        positions = bin_positions(
            edges.logits.shape[-1], scale=self.scale, up=self.up, dtype=start.dtype, device=start.device
        )
        left, right_share = edges_from_boxes(assignment.boxes, start, positions, scale=self.scale)
        each = fgl(edges.logits[assignment.place], left, right_share)
        return (each * quality[:, None]).sum() / assignment.normaliser

    def _ddf(self, edges: Edges, teacher: Predictions, assignment: Assignment, quality: Tensor) -> Tensor:
        """A matched query weighs its own IoU, any other what the teacher is sure of."""
        weights = teacher.logits.detach().sigmoid().amax(-1)
        weights[assignment.place] = quality
        matched = torch.zeros_like(weights, dtype=torch.bool)
        matched[assignment.place] = True
        assert teacher.edges is not None
        each = distillation(edges.logits, teacher.edges.logits).mean(-1) * weights
        return decoupled_mean(each, matched, num_matched=assignment.num_matched, balance=assignment.balance)


def _marked(head: Head, assignment: Assignment) -> Tensor:
    """[B, Q, C] True at the class of a matched query."""
    positive = torch.zeros_like(head.logits, dtype=torch.bool)
    positive[assignment.cell] = True
    return positive


def _qualities(head: Head, assignment: Assignment) -> Tensor:
    """[B, Q, C] the IoU with its target at the class of a matched query."""
    quality = torch.zeros_like(head.logits)
    quality[assignment.cell] = assignment.overlap(head)
    return quality
