"""Hungarian matching of queries and targets (Carion et al. 2020, DETR, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, NonNegativeInt
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy, giou, iou
from detr.config import Config
from detr.criterion.truth import Truth
from detr.records import Predictions


class MatcherConfig(Config):
    """What a pair of a query and a target costs; by default as in Deformable DETR and all that came after.

    `alpha` and `gamma` are those of the focal class cost. From epoch `by_overlap_from` on, counted from 0, a pair costs
    `-p * IoU ** overlap_power` instead, p the probability of the target's class (DEIMv2).
    """

    classification: Literal["focal", "softmax"] = "focal"
    class_cost: NonNegativeFloat = 2.0
    l1_cost: NonNegativeFloat = 5.0
    giou_cost: NonNegativeFloat = 2.0
    alpha: NonNegativeFloat = 0.25
    gamma: NonNegativeFloat = 2.0
    by_overlap_from: NonNegativeInt | None = None
    overlap_power: NonNegativeFloat = 4.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which query of which image answers for which target: `K` pairs, by image, then by query."""

    images: Tensor  # [K] int64, place in the batch
    queries: Tensor  # [K] int64
    targets: Tensor  # [K] int64, place in the row of all targets (`Truth`)

    def __len__(self) -> int:
        return len(self.images)


@torch.no_grad()
def match(heads: Sequence[Predictions], truth: Truth, config: MatcherConfig, *, epoch: int = 0) -> list[Pairs]:
    """The cheapest pairs for each head and image: each target gets one query, or, if fewer, each query one.

    Predictions must be finite and labels in range; the result is on the device of the truth.
    """
    cost = costs(heads, truth, config, epoch=epoch).cpu().numpy()
    return on_device(cheapest(cost, [head.boxes.shape[1] for head in heads], truth), truth)


@torch.no_grad()
def costs(heads: Sequence[Predictions], truth: Truth, config: MatcherConfig, *, epoch: int = 0) -> Tensor:
    """[T, Q of all heads side by side]: what each target costs with each query of its own image."""
    scores = torch.cat([_probabilities(head.logits, truth, config) for head in heads], dim=1)  # [T, Q...]
    boxes = torch.cat([head.boxes[truth.images] for head in heads], dim=1).to(truth.boxes.dtype)  # [T, Q..., 4]
    wanted = truth.boxes[:, None]
    corners, wanted_corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted)

    if config.by_overlap_from is not None and epoch >= config.by_overlap_from:
        return -scores * iou(corners, wanted_corners)[0].pow(config.overlap_power)
    cost = config.class_cost * _class_cost(scores, config)
    cost += config.l1_cost * (boxes - wanted).abs().sum(-1)
    cost -= config.giou_cost * giou(corners, wanted_corners)
    return cost


def cheapest(cost: NDArray[np.floating], num_queries: Sequence[int], truth: Truth) -> list[NDArray[np.int64]]:
    """By `costs` [T, sum(num_queries)] on the host, of each head [3, K] images, queries, targets."""
    by_head = np.split(cost, np.cumsum(num_queries)[:-1], axis=1)
    return [_cheapest(block, truth) for block in by_head]


def union(found: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """[3, K]: all pairs that any head found, each query with the target that most heads gave it (Peng et al. 2024,
    D-FINE, section 4.2). A target may have several queries.

    Of targets given equally often the first counts; the official code leaves open which.
    """
    (images, queries, targets), times = np.unique(np.concatenate(found, axis=1), axis=1, return_counts=True)
    order = np.lexsort((targets, -times, queries, images))
    pairs = np.stack((images, queries, targets))[:, order]
    is_first = np.ones(pairs.shape[1], dtype=bool)
    is_first[1:] = (pairs[:2, 1:] != pairs[:2, :-1]).any(axis=0)
    return pairs[:, is_first]


def on_device(found: Sequence[NDArray[np.int64]], truth: Truth) -> list[Pairs]:
    """One `Pairs` for each [3, K], on the device of the truth. All travel in one piece, without waiting for it."""
    row = torch.from_numpy(np.concatenate(found, axis=1)).to(truth.slots.device, non_blocking=True)
    return [Pairs(*part) for part in row.split([pairs.shape[1] for pairs in found], dim=1)]


def _cheapest(block: NDArray[np.floating], truth: Truth) -> NDArray[np.int64]:
    """The cost [T, Q] of one head -> [3, K] images, queries, targets."""
    found = []
    for image, (start, count) in enumerate(zip(truth.starts, truth.counts, strict=True)):
        queries, targets = linear_sum_assignment(block[start : start + count].T)
        found.append(np.stack((np.full_like(queries, image), queries, targets + start)))
    return np.concatenate(found, axis=1).astype(np.int64)


def _probabilities(logits: Tensor, truth: Truth, config: MatcherConfig) -> Tensor:
    """[B, Q, C] -> [T, Q]: each query's probability of each target's class."""
    own = truth.images, slice(None), truth.slots.clamp(0, logits.shape[-1] - 1)
    if config.classification == "softmax":
        return logits.to(truth.boxes.dtype).softmax(-1)[own]
    return logits[own].to(truth.boxes.dtype).sigmoid()


def _class_cost(scores: Tensor, config: MatcherConfig) -> Tensor:
    """Of saying the target's class: the focal loss of it less that of not saying it (Deformable DETR, Zhu et al.
    2021), or the probability with its sign turned (DETR).
    """
    if config.classification == "softmax":
        return -scores
    said = config.alpha * (1 - scores).pow(config.gamma) * -(scores + 1e-8).log()
    unsaid = (1 - config.alpha) * scores.pow(config.gamma) * -(1 - scores + 1e-8).log()
    return said - unsaid
