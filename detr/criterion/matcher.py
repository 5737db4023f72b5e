"""Hungarian matching of queries and targets (Carion et al. 2020, DETR, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy, giou
from detr.config import Config
from detr.criterion.truth import Truth
from detr.records import Predictions


class MatcherConfig(Config):
    """What a pair of a query and a target costs. `alpha` and `gamma` are those of the focal class cost."""

    class_cost: NonNegativeFloat = 2.0
    l1_cost: NonNegativeFloat = 5.0
    giou_cost: NonNegativeFloat = 2.0
    alpha: NonNegativeFloat = 0.25
    gamma: NonNegativeFloat = 2.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which query of which image answers for which target: `K` pairs, by image, then by query."""

    images: Tensor  # [K] int64, place in the batch
    queries: Tensor  # [K] int64
    targets: Tensor  # [K] int64, place in the row of all targets (`Truth`)


@torch.no_grad()
def match(heads: Sequence[Predictions], truth: Truth, config: MatcherConfig) -> list[Pairs]:
    """The cheapest pairs for each head and image: each target gets one query, or, if fewer, each query one.

    Predictions must be finite and labels in range; the result is on the device of the truth.
    """
    return assign(costs(heads, truth, config).cpu().numpy(), [head.boxes.shape[1] for head in heads], truth)


@torch.no_grad()
def costs(heads: Sequence[Predictions], truth: Truth, config: MatcherConfig) -> Tensor:
    """[T, Q of all heads side by side]: what each target costs with each query of its own image.

    The class cost is the focal loss of saying the target's class less that of not saying it (Deformable DETR, Zhu et
    al. 2021). Labels out of range are taken for the nearest class: refuse them before the answer is used.
    """
    logits = torch.cat([_at_labels(head.logits, truth) for head in heads], dim=1)  # [T, Q...]
    boxes = torch.cat([head.boxes[truth.images] for head in heads], dim=1).to(truth.boxes.dtype)  # [T, Q..., 4]
    wanted = truth.boxes[:, None]

    scores = logits.to(truth.boxes.dtype).sigmoid()
    said = config.alpha * (1 - scores).pow(config.gamma) * -(scores + 1e-8).log()
    unsaid = (1 - config.alpha) * scores.pow(config.gamma) * -(1 - scores + 1e-8).log()
    cost = config.class_cost * (said - unsaid)
    cost += config.l1_cost * (boxes - wanted).abs().sum(-1)
    cost -= config.giou_cost * giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))
    return cost


def assign(cost: NDArray[np.floating], num_queries: Sequence[int], truth: Truth) -> list[Pairs]:
    """The cheapest pairs by `costs` [T, sum(num_queries)] on the host; one `Pairs` a head, on the device of the truth.

    All indices travel to the device in one piece, without waiting for it.
    """
    by_head = np.split(cost, np.cumsum(num_queries)[:-1], axis=1)
    found = [_cheapest(block, truth) for block in by_head]
    row = torch.from_numpy(np.concatenate(found, axis=1)).to(truth.labels.device, non_blocking=True)
    return [Pairs(*part) for part in row.split([pairs.shape[1] for pairs in found], dim=1)]


def _cheapest(block: NDArray[np.floating], truth: Truth) -> NDArray[np.int64]:
    """The cost [T, Q] of one head -> [3, K] images, queries, targets."""
    found = []
    for image, (start, count) in enumerate(zip(truth.starts, truth.counts, strict=True)):
        queries, targets = linear_sum_assignment(block[start : start + count].T)
        found.append(np.stack((np.full_like(queries, image), queries, targets + start)))
    return np.concatenate(found, axis=1).astype(np.int64)


def _at_labels(logits: Tensor, truth: Truth) -> Tensor:
    """[B, Q, C] -> [T, Q]: each query's logit of each target's class."""
    return logits[truth.images, :, truth.labels.clamp(0, logits.shape[-1] - 1)]
