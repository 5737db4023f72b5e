"""An epoch's steps, from where the run stands in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice

from detr.data.coco import CocoDataset
from detr.data.loader import train_loader
from detr.errors import InputError
from detr.records import Batch
from detr.training.learning.optimizer import rate_factor, set_rates
from detr.training.run import Run
from detr.training.step import share_of_batch


def begin_epoch(run: Run, train_set: CocoDataset, workers: int) -> tuple[int, Iterator[list[Batch]]]:
    """The number of steps of the epoch, and the pieces of each one that is still to be done.

    Network and criterion are made ready for them.
    """
    settings, counters, team = run.recipe.train, run.counters, run.team
    loader = train_loader(
        train_set,
        input=run.network.config.input,
        augment=run.recipe.augment,
        batch_size=share_of_batch(settings.batch, team.size, settings.accumulate),
        seed=settings.seed,
        epoch=counters.epoch,
        workers=workers,
        rank=team.rank,
        world_size=team.size,
        scales=settings.scales,
        first_step=counters.step_in_epoch * settings.accumulate,
        balance=settings.balance,
        pinned=team.device.type == "cuda",
        longest_wait=settings.longest_wait,
    )
    steps = counters.step_in_epoch + math.ceil(len(loader) / settings.accumulate)
    if counters.step_in_epoch:  # what is told of an epoch gone on with is true even if none of its steps was left
        set_rates_at(run, counters.step - 1, steps)
    run.criterion.epoch = counters.epoch
    run.learner.train()
    for module in run.frozen:
        module.eval()
    return steps, _saved_without(run, _together(loader, settings.accumulate))


def end_epoch(run: Run) -> dict[str, float]:
    """The mean of each loss of the epoch, which is counted among the finished ones."""
    run.counters.epoch += 1
    run.counters.step_in_epoch = 0
    return run.watch.means()


def set_rates_at(run: Run, step: int, steps_per_epoch: int) -> None:
    """The learning rates of the optimizer's step number `step`, counted from 0."""
    settings = run.recipe.train
    factor = rate_factor(settings.schedule, step, steps_per_epoch=steps_per_epoch, epochs=settings.epochs)
    set_rates(run.optimizer, factor)


def _saved_without(run: Run, groups: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
    """`groups`; where one can't be had, which ends the training, what was done until then is saved."""
    try:
        yield from groups
    except InputError as problem:
        if run.sharded or not run.team.leads or not run.save_if_sound():
            raise
        at = f"after step {run.counters.step}"
        raise InputError(f"{problem}; saved {at}: when that is mended, detr train --resume {run.out}") from problem


def _together(batches: Iterable[Batch], pieces: int) -> Iterator[list[Batch]]:
    """Batches in lists of `pieces`; the last list may be shorter."""
    batches = iter(batches)
    while group := list(islice(batches, pieces)):
        yield group
