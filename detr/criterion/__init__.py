"""Matching, losses, and the criterion that a network is trained with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from detr.criterion.criterion import Criterion
from detr.criterion.families import FAMILIES, Family
from detr.criterion.matcher import MatcherConfig
from detr.criterion.terms import CriterionConfig
from detr.errors import UsageError, did_you_mean

__all__ = ["FAMILIES", "Criterion", "CriterionConfig", "MatcherConfig", "criterion_for"]


def criterion_for(network: Any, config: CriterionConfig | None = None) -> Criterion:
    """The criterion that trains this network, its losses under the official names of the network's paper.

    Without `config` the losses are those of the paper of the network's arch; recipes such as DEIM's have their own.
    UsageError where network and losses do not go together.
    """
    model: Any = network.config
    if model.arch not in FAMILIES:
        nearest = did_you_mean(model.arch, FAMILIES) or f"; known: {', '.join(FAMILIES)}"
        raise UsageError(f"no criterion is known for a network of arch {model.arch!r}{nearest}")
    family = FAMILIES[model.arch]
    config = config or family.config
    _require_fit(network, family, config)
    suffixes = family.suffixes
    if model.arch == "rtdetr" and model.version == 1:
        suffixes = replace(suffixes, proposals="_aux_{}")
    edges = {"edge_scale": model.decoder.scale, "edge_up": model.decoder.up} if family.edges else {}
    return Criterion(
        config,
        suffixes=suffixes,
        class_loss=family.focal if config.classification == "focal" else None,
        slots=network.slots,
        one_class_proposals=family.one_class_proposals,
        **edges,
    )


def _require_fit(network: Any, family: Family, config: CriterionConfig) -> None:
    if network.scoring.exclusive != (config.classification == "cross_entropy"):
        wanted = "cross_entropy" if network.scoring.exclusive else "varifocal, focal or mal"
        raise UsageError(
            f"criterion.classification is {config.classification!r}; a network of arch {network.config.arch!r} "
            f'{"has" if network.scoring.exclusive else "has not"} a logit for "no object": expected {wanted}'
        )
    if (config.matcher.classification == "softmax") != network.scoring.exclusive:
        wanted = "softmax" if network.scoring.exclusive else "focal"
        raise UsageError(
            f"criterion.matcher.classification is {config.matcher.classification!r}; expected {wanted!r} where "
            f"criterion.classification is {config.classification!r}"
        )
    if not family.edges and (config.fgl_weight or config.ddf_weight):
        raise UsageError(
            f"criterion.fgl_weight and ddf_weight are for boxes told as distributions ({', '.join(_with_edges())}); "
            f"expected 0 for arch {network.config.arch!r}"
        )


def _with_edges() -> list[str]:
    return [arch for arch, family in FAMILIES.items() if family.edges]
