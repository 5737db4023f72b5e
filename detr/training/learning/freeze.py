"""Parts that don't learn."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from detr.models.network import DetectionNetwork

Frozen = Literal["nothing", "stem", "stage1", "stage2", "stage3", "backbone", "all but heads"]
_STAGES: tuple[Frozen, ...] = ("stem", "stage1", "stage2", "stage3")


def freeze(network: DetectionNetwork, what: Frozen) -> list[nn.Module]:
    """Take the gradients from a part, and return its modules: they stay in evaluation mode, so their norms don't drift.

    `stem` to `stage3` are the backbone's parts up to there; `all but heads` leaves the class and box heads.
    """
    if what == "nothing":
        return []
    if what == "all but heads":
        heads = network.heads()
        network.requires_grad_(False)
        for head in heads:
            head.requires_grad_(True)
        learning = {module for head in heads for module in head.modules()}
        return [module for module in network.modules() if not any(part in learning for part in module.modules())]
    backbone: Any = network.backbone
    parts = [backbone] if what == "backbone" else [backbone.stem, *backbone.stages][: _STAGES.index(what) + 1]
    for part in parts:
        part.requires_grad_(False)
    return parts
