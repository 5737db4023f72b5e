"""A run's folder: what it holds besides states and weights, and what is done where someone removed it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from detr.config import as_yaml
from detr.data.coco import CocoDataset
from detr.evaluation.album import draw_set
from detr.files import require_writable, write_text
from detr.training.run import Run
from detr.training.saved.checkpoint import BEST, DATA, RECIPE, Resumed
from detr.training.saved.generations import forget, set_damaged_aside
from detr.training.saved.occupied import occupied
from detr.training.told.journal import Journal
from detr.training.told.loggers import TENSORBOARD, open_trackers
from detr.training.told.origin import tell_origin
from detr.training.told.sanity import SanityCard


def begin_folder(
    run: Run, resumed: Resumed | None, data: str | None, train_set: CocoDataset, log: Sequence[str] | None
) -> None:
    """What it holds besides states and weights; only for the process that leads."""
    if resumed is None:
        forget(run.out)
    else:
        set_damaged_aside(run.out, resumed)
    _describe(run, data)
    run.journal = Journal(
        run.out,
        since_step=run.counters.step,
        epochs=run.counters.epoch,
        tensorboard=log is None or TENSORBOARD in log,
        trackers=open_trackers(
            log or (), run.out, settings=run.recipe.as_tree(), resumed=resumed is not None, say=run.say
        ),
    )
    for path in draw_set(run.out, train_set.annotations, run.recipe.model.input):
        run.journal.picture(path.stem, path, run.counters.step)
    run.card = SanityCard() if run.counters.step == 0 else None


def _describe(run: Run, data: str | None) -> None:
    """What it takes to go on, and to repeat it."""
    write_text(run.out / RECIPE, as_yaml(run.recipe.as_tree()))
    if data is not None:
        write_text(run.out / DATA, data + "\n")
    tell_origin(
        run.out, since_step=run.counters.step, data=data, seed=run.recipe.train.seed, circumstances=run.circumstances
    )


def keep_folder(run: Run, data: str | None, held: ExitStack) -> None:
    """Where someone removed the folder, it is made anew: hours of computing are not given up for it."""
    if (run.out / RECIPE).is_file():
        return
    require_writable(run.out)
    held.enter_context(occupied(run.out))
    _describe(run, data)
    assert run.journal is not None
    run.journal.write_anew()
    run.say(
        f"warning: {run.out} was removed while training ran; it is made anew and training goes on (Ctrl-C stops it); "
        "pictures and the numbers of single steps are lost"
    )


def require_best(run: Run) -> None:
    """The best weights may have gone with the folder: the best from then on are those of what is left."""
    counters = run.counters
    is_gone = counters.best is not None and run.team.leads and not (run.out / BEST).is_file()
    if run.team.largest(is_gone):
        run.say(f"warning: {run.out / BEST} is gone (epoch {counters.best_epoch}, AP {counters.best:.4f}); "
                "from now on it is the best of the epochs to come")  # fmt: skip
        counters.best, counters.best_epoch = None, 0
