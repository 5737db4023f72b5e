"""The end of a training as a second stage (D-FINE): from the best of the first, and again whenever it got no better."""

from __future__ import annotations

from detr.training.run import Run
from detr.training.saved.checkpoint import read_state

FIRST = "first_stage.safetensors"
"""The whole state after the first stage's best epoch, in the folder of the run."""


def begin_second_stage(run: Run) -> None:
    """To be called before each epoch: at the one where the second stage begins, go back and change the decay."""
    stage, counters = run.recipe.train.second_stage, run.counters
    if stage is None or counters.epoch != stage.epoch or counters.step_in_epoch:
        return
    counters.best_of_stage = counters.best
    average = run.recipe.train.average
    before = 0.0 if average is None else average.decay
    _go_back(run, before if stage.decay is None else stage.decay)


def after_evaluation(run: Run, ap: float) -> None:
    """Keep the best of the first stage; in the second, start anew where an epoch got no better than those before.

    The epoch after a new start is only compared with the next ones, as officially.
    """
    stage, counters = run.recipe.train.second_stage, run.counters
    if stage is None:
        return
    if counters.epoch <= stage.epoch:
        if counters.best_epoch == counters.epoch:
            run.write_state(run.out / FIRST)
            run.team.wait()
    elif counters.best_of_stage is None or ap > counters.best_of_stage:
        counters.best_of_stage = ap
    else:
        counters.best_of_stage = None
        assert counters.decay is not None
        _go_back(run, max(0.0, counters.decay - stage.less))


def _go_back(run: Run, decay: float) -> None:
    """To the best of the first stage, where there was an evaluation; the average goes on with this decay."""
    if run.counters.best is None:
        what = "nothing was evaluated before, so it goes on with what there is"
    elif not (run.out / FIRST).is_file():
        what = f"{run.out / FIRST} is gone, so it goes on with what there is"
    else:
        state = read_state(run.out / FIRST)
        run.restore(state)
        what = f"from epoch {state.counters.epoch}, the best of the first"
    run.say(f"second stage: {what}; decay of the average {decay:g}")
    run.counters.decay = decay
    if run.average is not None:
        run.average.set_decay(decay)
