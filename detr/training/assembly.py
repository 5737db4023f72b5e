"""A run from a recipe: network, weights to start from, what doesn't learn, optimizer, and a saved state put back."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from detr import models
from detr.data.coco import CocoDataset
from detr.runtime.distributed import Team, shared
from detr.runtime.interruption import Interruption
from detr.training.learning.compiling import compile_parts
from detr.training.learning.freeze import freeze
from detr.training.learning.lora import adapt
from detr.training.learning.optimizer import groups_by_role, table
from detr.training.learning.recomputing import recompute
from detr.training.learning.sharding import shard, sharded
from detr.training.learning.teacher import Teacher, require_same_colours
from detr.training.recipe import Recipe
from detr.training.run import Run, Say, assemble
from detr.training.saved.checkpoint import Resumed
from detr.training.start import start_fresh, start_from, warning_of_fresh_norms


def build_run(
    recipe: Recipe,
    *,
    team: Team,
    out: Path,
    train_set: CocoDataset,
    weights: str | None,
    resumed: Resumed | None,
    interruption: Interruption,
    say: Say,
) -> Run:
    """A run before its first step, or, with a saved state, where that left off. Nothing is written."""
    settings = recipe.train
    torch.manual_seed(settings.seed)
    network = models.build_model(recipe.model, classes=train_set.classes)
    if resumed is None:
        begun = start_fresh(network) if weights is None else start_from(network, weights)
        if begun is not None:
            say(begun.text)
        elif recipe.model.backbone.frozen_norms:
            say(warning_of_fresh_norms(recipe.model.backbone))
    frozen = freeze(network, settings.freeze) if settings.lora is None else adapt(network, settings.lora, say)
    network.to(team.device)
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)
    if settings.activation_checkpointing:
        say(f"{recompute(network)} layers and stages keep only their input for the backward pass")
    if settings.compile:
        compile_parts(network)
    place = None  # of the average
    if settings.shard and team.size > 1:
        place = None if settings.average is None else shard(copy.deepcopy(network), team)
        learner: nn.Module = sharded(network, team)
    else:
        learner = shared(network, team)
    groups = groups_by_role(network, settings.optimizer)
    say(table(groups))
    run = assemble(recipe, team, out, network, learner, frozen, groups, interruption, say, place)
    if settings.teacher is not None:
        run.teacher = Teacher(settings.teacher, network, run.criterion, team.device)
        require_same_colours(run.teacher, network, recipe.augment)
        say(run.teacher.text)
    if resumed is not None:
        run.go_on(resumed)
    return run
