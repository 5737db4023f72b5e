"""A recipe fitted to the training it is for: warm-up and average of a run of few steps."""

from __future__ import annotations

from collections.abc import Callable

from detr.data.annotations import Annotations
from detr.data.balance import epoch_length
from detr.engine.optimizer import OptimizerConfig
from detr.engine.rates import factor
from detr.engine.recipe import Recipe


def fitted(recipe: Recipe, annotations: Annotations, *, say: Callable[[str], None]) -> Recipe:
    """The recipe as it trains on those images; `say` hears what became of it.

    `train.schedule.warmup_share` limits the warm-up to that share of all steps. `train.average.share` likewise limits
    the steps that the average is over, 1 / (1 - decay), and its own warm-up to half as many: an average that began
    before most of the training is one of weights that knew little.
    """
    train = recipe.train
    steps = train.epochs * max(1, epoch_length(annotations, train.balance) // train.batch)
    schedule, average = train.schedule, train.average
    changes = []
    if schedule.warmup_share is not None and (most := _steps(schedule.warmup_share * steps)) < schedule.warmup:
        changes.append(f"warm-up {most} steps (not {schedule.warmup})")
        schedule = schedule.model_copy(update={"warmup": most})
    if average is not None and average.share is not None:
        over = _steps(average.share * steps)
        decay, warmup = min(average.decay, 1 - 1 / over), min(average.warmup, _steps(over / 2))
        if (decay, warmup) != (average.decay, average.warmup):
            changes.append(f"average over {round(1 / (1 - decay))} steps (not {round(1 / (1 - average.decay))})")
            average = average.model_copy(update={"decay": float(f"{decay:.6g}"), "warmup": warmup})
    if not changes:
        return recipe
    say(f"fitted to {steps:,} steps: {', '.join(changes)}")
    return recipe.model_copy(update={"train": train.model_copy(update={"schedule": schedule, "average": average})})


def words_on_rates(optimizer: OptimizerConfig, batch: int) -> str | None:
    """What to say of rates that are not those of the recipe, if so."""
    if optimizer.scaled_from is None:
        return None
    times = factor(batch, optimizer.scaled_from, optimizer.scaling)
    return (
        f"learning rates x {times:.3g}: as written they are for a batch of {optimizer.scaled_from}, this is {batch} "
        f"({optimizer.scaling}; train.optimizer.scaling=none leaves them)"
    )


def _steps(number: float) -> int:
    return max(1, round(number))
