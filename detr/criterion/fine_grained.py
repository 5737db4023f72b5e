"""Losses of boxes that are told as distributions over bins, one for each edge (Peng et al. 2024, D-FINE).

Pure functions, neither weighted nor summed; `detr.layers.edges` says what a bin means.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div


def fgl(logits: Tensor, left: Tensor, right_share: Tensor) -> Tensor:
    """Fine-grained localization loss (section 4.1) of each edge, [...]; the paper weighs it with the IoU.

    logits [..., R]; left [...] int64 the lower one of the two bins that the edge lies between, in 0..R-2;
    right_share [...] in [0, 1] how much of it belongs to the bin above.
    """
    log_shares = logits.log_softmax(-1)
    below = log_shares.gather(-1, left[..., None])[..., 0]
    above = log_shares.gather(-1, left[..., None] + 1)[..., 0]
    return -((1 - right_share) * below + right_share * above)


def distillation(student: Tensor, teacher: Tensor, *, temperature: float = 5.0) -> Tensor:
    """Kullback-Leibler divergence of the student's distribution from the teacher's, both [..., R] logits, [...].

    Both are softened by `temperature`, and its square keeps the gradients as large as without (Hinton et al. 2015,
    section 2). No gradient reaches the teacher.
    """
    softened = (student / temperature).log_softmax(-1)
    wanted = (teacher.detach() / temperature).softmax(-1)
    return temperature**2 * kl_div(softened, wanted, reduction="none").sum(-1)


def decoupled_mean(
    values: Tensor, matched: Tensor, *, num_matched: Tensor | float, balance: tuple[Tensor | float, Tensor | float]
) -> Tensor:
    """The mean of the matched values and that of the others, mixed by the roots of two counts (D-FINE's DDF, section
    4.2).

    values and matched (bool) [B, Q]; `num_matched` of them are; `balance` counts matched and other queries. A kind
    without any member, or whose count in `balance` is 0, adds nothing.
    """
    like = values.new_ones(())
    counts = like * num_matched, like * (matched.numel() - num_matched)
    roots = (like * balance[0]).clamp(min=0).sqrt(), (like * balance[1]).clamp(min=0).sqrt()
    kinds = torch.where(matched, values, 0.0), torch.where(matched, 0.0, values)
    means = [kind.sum() / count.clamp(min=1) for kind, count in zip(kinds, counts, strict=True)]
    return (roots[0] * means[0] + roots[1] * means[1]) / (roots[0] + roots[1])
