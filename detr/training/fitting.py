"""A recipe fitted to the training it is for: a warm-up that ends well before a run of few steps does."""

from __future__ import annotations

from collections.abc import Callable

from detr.data.annotations import Annotations
from detr.data.balance import epoch_length
from detr.errors import counted
from detr.training.learning.optimizer import OptimizerConfig
from detr.training.learning.rates import factor
from detr.training.recipe import Recipe


def fitted(recipe: Recipe, annotations: Annotations, *, say: Callable[[str], None]) -> Recipe:
    """The recipe as it trains on those images; `say` hears what became of it.

    The warm-up takes at most `train.schedule.warmup_share` of all steps. The average needs no such limit: while its own
    warm-up lasts it follows the network closely (`detr.training.learning.average`).
    """
    train, schedule = recipe.train, recipe.train.schedule
    if schedule.warmup_share is None:
        return recipe
    steps = train.epochs * max(1, epoch_length(annotations, train.balance) // train.batch)
    most = max(1, round(schedule.warmup_share * steps))
    if most >= schedule.warmup:
        return recipe
    say(f"{counted(steps, 'step')} in all: the warm-up takes {most} of them, not {schedule.warmup}")
    shorter = schedule.model_copy(update={"warmup": most})
    return recipe.model_copy(update={"train": train.model_copy(update={"schedule": shorter})})


def words_on_rates(optimizer: OptimizerConfig, batch: int) -> str | None:
    """What to say of rates that are not those of the recipe, if so."""
    if optimizer.scaled_from is None:
        return None
    times = factor(batch, optimizer.scaled_from, optimizer.scaling)
    return (
        f"learning rates x {times:.3g}: as written they are for a batch of {optimizer.scaled_from}, this is {batch} "
        f"({optimizer.scaling}; train.optimizer.scaling=none leaves them)"
    )
