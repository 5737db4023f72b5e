"""AdamW over parameter groups by role, and the learning rate of each step.

A parameter's role comes from the type of the module that owns it and from where the network keeps that module,
never from patterns over names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from detr.config import Config
from detr.models.network import DetectionNetwork
from detr.training.learning.depth import depths
from detr.training.learning.lora import LowRank
from detr.training.learning.rates import Scaling

Role = Literal[
    "backbone",
    "backbone norms",
    "backbone biases",
    "norms",
    "projection norms",
    "projection norm biases",
    "sampling",
    "sampling biases",
    "biases",
    "low rank",
    "rest",
]
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW. The switches on rates and weight decay are what the published recipes differ in.

    At another batch than the recipe's own its rates are multiplied when it is read (`detr.training.learning.rates`),
    but not those given in words; `scaled_from` then says which batch they were for.
    """

    scaling: Scaling = "sqrt"
    scaled_from: int | None = Field(default=None, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    backbone_lr: float = Field(default=1e-5, gt=0)
    sampling_lr: float | None = Field(default=None, gt=0)  # where deformable attention looks; none: as the rest
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Each stage of the backbone (layer, in a transformer) learns at this part of the rate of the one behind it, down
    to the stem; the last at the rate of its role (Clark et al. 2020, ELECTRA; for detection Li et al. 2022, ViTDet)."""
    slow_backbone_norms: bool = True  # the backbone's norms learn at its rate, not at that of the rest
    weight_decay: float = Field(default=1e-4, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    decay_norms: bool = False  # all of them
    decay_backbone_norms: bool = False
    decay_projection_norms: bool = False  # RT-DETR v1 decays the norms of its input and memory projections
    decay_biases: bool = True  # of linear and convolution layers outside the backbone
    decay_backbone_biases: bool = True


class ScheduleConfig(Config):
    """The learning rate over the steps, as a factor on each group's own rate; the warm-up comes before any shape."""

    shape: Literal["constant", "multistep", "cosine", "flat-cosine"] = "constant"
    peak: float = Field(default=1.0, gt=0, le=1)  # the factor after the warm-up; everything is relative to it
    warmup: int = Field(default=0, ge=0)  # steps
    warmup_share: float | None = Field(default=None, gt=0, le=1)  # at most, of all steps: see `detr.training.fitting`
    rise: Literal["linear", "quadratic"] = "linear"  # of the warm-up
    milestones: tuple[NonNegativeInt, ...] = ()  # multistep: the epochs at which the rate is multiplied by gamma
    gamma: float = Field(default=0.1, gt=0, le=1)
    flat: float = Field(default=0.5, ge=0, lt=1)  # flat-cosine: the part of the steps before the descent
    end: float = Field(default=0.0, ge=0, lt=1)  # cosine, flat-cosine: the part of the steps after it
    last: float = Field(default=0.01, ge=0, le=1)  # cosine, flat-cosine: where the descent ends

    @model_validator(mode="after")
    def _fits(self) -> ScheduleConfig:
        if self.shape == "flat-cosine" and self.flat + self.end >= 1:
            raise ValueError(f"flat {self.flat:g} and end {self.end:g} leave no steps for the descent between them")
        return self


@dataclass
class Group:
    role: Role
    lr: float
    weight_decay: float
    names: list[str] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)
    depth: int | None = None  # stages of the backbone behind it, where they differ in their rates

    @property
    def title(self) -> str:
        return self.role if self.depth is None else f"{self.role} -{self.depth}"


def groups_by_role(network: DetectionNetwork, config: OptimizerConfig) -> list[Group]:
    """Every parameter that learns, once, in the groups of the recipe; frozen ones are left out."""
    groups: dict[tuple[Role, int | None], Group] = {}
    depth_of = {} if config.layer_decay is None else depths(network)
    for role, name, parameter in roles(network):
        if not parameter.requires_grad:
            continue
        depth = depth_of.get(parameter)
        if (role, depth) not in groups:
            rate = _rate(role, config) * (config.layer_decay or 1.0) ** (depth or 0)
            decay = config.weight_decay if _decays(role, config) else 0.0
            groups[role, depth] = Group(role, rate, decay, depth=depth)
        groups[role, depth].names.append(name)
        groups[role, depth].parameters.append(parameter)
    return list(groups.values())


def roles(network: DetectionNetwork) -> Iterator[tuple[Role, str, nn.Parameter]]:
    """(role, name, parameter) for each parameter, a shared one under its first name."""
    fresh = {module for part in network.fresh() for module in part.modules()}
    backbone = set(network.backbone.modules()) - fresh
    projections = fresh | {module for part in network.projecting() for module in part.modules()}
    sampling = set(network.looking())
    seen: set[nn.Parameter] = set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter in seen:
                continue
            seen.add(parameter)
            if isinstance(module, LowRank):
                yield "low rank", name, parameter
                continue
            is_norm, is_bias = isinstance(module, NORMS), name.endswith("bias")
            if module in backbone:
                yield _role_in_backbone(is_norm, is_bias), name, parameter
            elif module in sampling:
                yield "sampling biases" if is_bias else "sampling", name, parameter
            else:
                yield _role(is_norm, is_bias, in_projection=module in projections), name, parameter


def _role_in_backbone(is_norm: bool, is_bias: bool) -> Role:
    if is_norm:
        return "backbone norms"
    return "backbone biases" if is_bias else "backbone"


def _role(is_norm: bool, is_bias: bool, *, in_projection: bool) -> Role:
    if is_norm and in_projection:
        return "projection norm biases" if is_bias else "projection norms"
    if is_norm:
        return "norms"
    return "biases" if is_bias else "rest"


def _rate(role: Role, config: OptimizerConfig) -> float:
    match role:
        case "backbone" | "backbone biases":
            return config.backbone_lr
        case "backbone norms":
            return config.backbone_lr if config.slow_backbone_norms else config.lr
        case "sampling" | "sampling biases":
            return config.lr if config.sampling_lr is None else config.sampling_lr
        case _:
            return config.lr


def _decays(role: Role, config: OptimizerConfig) -> bool:
    match role:
        case "norms":
            return config.decay_norms
        case "backbone norms":
            return config.decay_norms or config.decay_backbone_norms
        case "projection norms":
            return config.decay_norms or config.decay_projection_norms
        case "projection norm biases":
            return config.decay_norms or (config.decay_projection_norms and config.decay_biases)
        case "biases" | "sampling biases":
            return config.decay_biases
        case "backbone biases":
            return config.decay_backbone_biases
        case _:
            return True


def build_optimizer(groups: list[Group], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW, fused. Each group keeps its own rate as `base_lr`, which the schedule multiplies."""
    return torch.optim.AdamW(
        [
            {"params": g.parameters, "lr": g.lr, "weight_decay": g.weight_decay, "base_lr": g.lr, "role": g.title}
            for g in groups
        ],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,  # the fused kernel also leaves out a step that is not finite (`Watch.note`)
    )


def table(groups: list[Group]) -> str:
    """The groups as text: role, tensors, parameters, learning rate, weight decay."""
    rows = [["group", "tensors", "parameters", "lr", "weight decay"]]
    for group in groups:
        numbers = sum(parameter.numel() for parameter in group.parameters)
        rows.append([group.title, str(len(group.names)), f"{numbers:,}", f"{group.lr:.4g}", f"{group.weight_decay:g}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def rate_factor(config: ScheduleConfig, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The factor on every learning rate at `step` (0-based, counted over the whole training)."""
    if step < config.warmup:
        part = (step + 1) / config.warmup
        return config.peak * (part if config.rise == "linear" else part**2)
    return config.peak * _after_warmup(config, step, steps_per_epoch, total=steps_per_epoch * epochs)


def _after_warmup(config: ScheduleConfig, step: int, steps_per_epoch: int, *, total: int) -> float:
    bottom = total - round(config.end * total)
    match config.shape:
        case "constant":
            return 1.0
        case "multistep":
            return config.gamma ** sum(step // steps_per_epoch >= milestone for milestone in config.milestones)
        case "cosine":
            return _descent(step, config.warmup, bottom, config.last)
        case "flat-cosine":
            return _descent(step, max(config.warmup, round(config.flat * total)), bottom, config.last)


def _descent(step: int, start: int, end: int, last: float) -> float:
    part = min(1.0, max(0, step - start) / max(1, end - start))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * part))
