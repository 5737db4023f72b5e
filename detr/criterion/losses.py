"""The losses, as pure functions: a number for each class score or pair of boxes, neither weighted nor summed."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.functional import cross_entropy as negative_log_likelihood

from detr.boxes import cxcywh_to_xyxy
from detr.boxes import giou as generalised_iou


def cross_entropy(logits: Tensor, slots: Tensor, *, no_object_weight: float = 0.1) -> Tensor:
    """-log of the probability of the wanted slot, [B, Q] (DETR, Carion et al. 2020, section 3.1, equation 2).

    logits [B, Q, C], the last slot is "no object"; slots [B, Q] int64. A query that is to say "no object" weighs
    `no_object_weight`, any other 1: there are many of the one and few of the other.
    """
    # In one row, as what PyTorch has for maps is not deterministic on a GPU.
    loss = negative_log_likelihood(logits.flatten(0, 1), slots.flatten(), reduction="none").view_as(slots)
    return torch.where(slots == logits.shape[-1] - 1, no_object_weight * loss, loss)


def focal(logits: Tensor, positive: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss on independent sigmoids (Lin et al. 2017, RetinaNet, section 3.2, equation 5), [..., C].

    logits [..., C]; positive [..., C] bool. `-alpha_t * (1 - p_t) ** gamma * log(p_t)`; the weights have gradients.
    """
    wanted = positive.to(logits.dtype)
    scores = logits.sigmoid()
    missing = torch.where(positive, 1 - scores, scores)
    balance = torch.where(positive, alpha, 1 - alpha)
    return balance * missing.pow(gamma) * binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def varifocal(logits: Tensor, positive: Tensor, quality: Tensor, *, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Varifocal loss (Zhang et al. 2021, VarifocalNet, section 3.2, equation 2), [..., C].

    logits [..., C]; positive [..., C] bool, true at the class of a matched query; quality [..., C] the IoU with the
    target, used where positive. A matched class is to score its IoU and weighs as much as that IoU; every other class
    is to score 0 and weighs `alpha * p ** gamma`. No gradient goes through the weights.
    """
    weights = torch.where(positive, quality, alpha * logits.detach().sigmoid().pow(gamma))
    return binary_cross_entropy_with_logits(logits, torch.where(positive, quality, 0.0), weights, reduction="none")


def matchability_aware(logits: Tensor, positive: Tensor, quality: Tensor, *, gamma: float = 1.5) -> Tensor:
    """MAL (Huang et al. 2024, DEIM, section 3.3), [..., C]; arguments as in `varifocal`.

    A matched class is to score its IoU to the power of `gamma` and always weighs 1, so that a poor match is learned
    from too; every other class is to score 0 and weighs `p ** gamma`. No gradient goes through the weights.
    """
    weights = torch.where(positive, 1.0, logits.detach().sigmoid().pow(gamma))
    wanted = torch.where(positive, quality.pow(gamma), 0.0)
    return binary_cross_entropy_with_logits(logits, wanted, weights, reduction="none")


def l1(boxes: Tensor, others: Tensor) -> Tensor:
    """Sum of the absolute differences of the four coordinates, [..., 4] and [..., 4] -> [...] (DETR, section 3.1)."""
    return (boxes - others).abs().sum(-1)


def giou(boxes: Tensor, others: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """1 - GIoU of boxes in cxcywh, [..., 4] and [..., 4] -> [...] in [0, 2] (Rezatofighi et al. 2019, section 3).

    `epsilon` is added to the areas that are divided by.
    """
    return 1 - generalised_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(others), epsilon=epsilon)
