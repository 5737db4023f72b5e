"""What each arch of the family is trained with, as published."""

from __future__ import annotations

from dataclasses import dataclass

from detr.criterion.heads import RTDETR_SUFFIXES, Suffixes
from detr.criterion.matcher import MatcherConfig
from detr.criterion.terms import CriterionConfig


@dataclass(frozen=True)
class Family:
    """Of an arch, the published losses and how its code names them."""

    config: CriterionConfig
    suffixes: Suffixes = RTDETR_SUFFIXES
    focal: str = "loss_focal"  # the name of the focal loss
    one_class_proposals: bool = False  # whether the proposals say in the first slot if there is an object
    edges: bool = False  # whether the network tells boxes as distributions


FAMILIES = {
    # Carion et al. 2020, https://arxiv.org/abs/2005.12872
    "detr": Family(
        CriterionConfig(
            classification="cross_entropy", matcher=MatcherConfig(classification="softmax", class_cost=1.0)
        ),
        Suffixes(auxiliary="_{}"),
        focal="loss_ce",
    ),
    # Zhu et al. 2021, https://arxiv.org/abs/2010.04159
    "deformable_detr": Family(
        CriterionConfig(classification="focal", class_weight=2.0, alpha=0.25),
        Suffixes(auxiliary="_{}", proposals="_enc"),
        focal="loss_ce",
        one_class_proposals=True,
    ),
    # Zhang et al. 2023, https://arxiv.org/abs/2203.03605
    "dino": Family(
        CriterionConfig(classification="focal", alpha=0.25, giou_epsilon=1e-6),
        Suffixes(auxiliary="_{}", proposals="_interm", last_denoising="_dn"),
        focal="loss_ce",
    ),
    # Zhao et al. 2024, https://arxiv.org/abs/2304.08069; in the code of its second version
    "rtdetr": Family(CriterionConfig()),
    # Peng et al. 2024, https://arxiv.org/abs/2410.13842
    "dfine": Family(CriterionConfig(fgl_weight=0.15, ddf_weight=1.5, union=True), edges=True),
    # Huang et al. 2025, https://arxiv.org/abs/2509.20787, sizes n and up
    "deimv2": Family(
        CriterionConfig(classification="mal", gamma=1.5, fgl_weight=0.15, ddf_weight=1.5, union=True), edges=True
    ),
}
