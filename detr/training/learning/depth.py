"""How deep in the backbone a parameter lies, for rates that fall towards the image."""

from __future__ import annotations

from typing import Any

from torch import nn

from detr.models.network import DetectionNetwork


def depths(network: DetectionNetwork) -> dict[nn.Parameter, int]:
    """Of each parameter of the backbone, how many stages (layers, in a transformer) lie behind it: 0 for the last one.

    What stands beside stem and stages counts as the stem where the backbone itself holds it, as tokens are that enter
    with the first layer, and else as the last stage, as norms do that come after it. What no pretraining has seen
    (`DetectionNetwork.fresh`) is left out: it isn't of the pretrained stack. UsageError for a backbone without stages.
    """
    backbone: Any = network.backbone
    stages = list(backbone.stages)
    found: dict[nn.Parameter, int] = dict.fromkeys(backbone.parameters(), 0)
    for number, stage in enumerate(stages, start=1):
        found |= dict.fromkeys(stage.parameters(), len(stages) - number)
    first = [*backbone.stem.parameters(), *backbone.parameters(recurse=False)]
    found |= dict.fromkeys(first, len(stages))
    for module in network.fresh():
        for parameter in module.parameters():
            found.pop(parameter, None)
    return found
