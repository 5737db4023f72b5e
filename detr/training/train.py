"""The training program, to be read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from detr.data.coco import CocoDataset
from detr.evaluation import plots
from detr.evaluation.album import draw_evaluation
from detr.evaluation.validate import Left, validate
from detr.files import require_writable
from detr.models.network import DetectionNetwork
from detr.records import Batch
from detr.runtime.determinism import same_bits
from detr.runtime.device import choose_device, default_workers
from detr.runtime.distributed import joined, waiting
from detr.runtime.interruption import noticed
from detr.runtime.progress import progress
from detr.runtime.runner import TorchRunner
from detr.training.assembly import build_run
from detr.training.epoch import begin_epoch, end_epoch, set_rates_at
from detr.training.fitting import fitted
from detr.training.folder import begin_folder, keep_folder, require_best
from detr.training.recipe import Recipe
from detr.training.run import Run, Say, say_nothing
from detr.training.saved import checkpoint
from detr.training.saved.checkpoint import BEST, LAST
from detr.training.saved.circumstances import circumstances, require_unchanged
from detr.training.saved.generations import newest, with_the_way_on
from detr.training.saved.occupied import occupied
from detr.training.saved.pace import Pace
from detr.training.second_stage import after_evaluation, begin_second_stage
from detr.training.skipping import answer_for_skipped
from detr.training.step import take_step
from detr.training.told.sanity import LOOKS
from detr.training.words import ROWS_EVERY, fill_card, say_what_is_asked, tell_epoch, tell_steps

SAVE_EVERY = 600.0  # seconds from one saved state to the next within an epoch
SAVED_BEFORE_EVALUATION = 60.0  # seconds of steps that an evaluation broken off may cost; a longer time is saved first


@dataclass(frozen=True)
class Summary:
    """What came of a training."""

    out: Path
    epochs: int  # finished
    steps: int
    best: float | None  # AP
    best_epoch: int
    metrics: dict[str, float]  # of the last evaluation
    stopped_early: bool
    skipped: int  # steps left out because a number was not finite
    seconds: float

    def to_json(self) -> dict[str, Any]:
        numbers = asdict(self)
        return {"folder": str(numbers.pop("out")), "AP": numbers.pop("best"), **numbers}


def train(
    recipe: Recipe,
    *,
    train_set: CocoDataset,
    val_set: CocoDataset | None,
    out: str | PathLike[str],
    data: str | None = None,
    weights: str | None = None,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    save_every: Pace | None = None,
    allow_changes: bool = False,
    log: Sequence[str] | None = None,
    say: Say = print,
) -> Summary:
    """Train `recipe` and leave weights, journal and pictures in the folder `out`.

    `weights` (a release or a file) to start from; `resume` goes on with what `out` holds; `data`, the path that the
    sets were opened from, is kept there. Every draw is a function of the recipe's seed, so the same call gives the same
    weights on the same machine, and a resumed run those of one that was never stopped, wherever that was killed: the
    state is saved before the first step, after each epoch and, within one, at the pace of `save_every` (none: ten
    minutes). InputError if data or recipe are others than when it was saved, unless `allow_changes`.
    `log`: where else it is written, names of `detr.training.told.loggers`; without, TensorBoard where it is installed.
    SIGINT and SIGTERM: the step is finished or the evaluation left, the state saved, and the signal raised again.
    A step whose loss or gradient is not finite is left out, and kept in `out` (`detr.training.replay`). Diverged: more
    than `train.skip_at_most` in a row, or a weight that is not finite.
    """
    out = Path(out)
    with (
        same_bits(recipe.train.deterministic),
        joined(choose_device(device)) as team,
        noticed() as interruption,
        ExitStack() as held,
    ):
        say = say if team.leads else say_nothing
        recipe = recipe if resume else fitted(recipe, train_set.annotations, say=say)
        settings = recipe.train
        require_writable(out)
        workers = default_workers(team.size) if workers is None else workers
        held.enter_context(occupied(out) if team.leads else nullcontext())
        resumed = newest(out, say) if resume else None
        around = circumstances(train_set, val_set, team, recipe.train.teacher)
        if resumed is not None:
            require_unchanged(resumed, recipe, around, allow=allow_changes, say=say)
        say_what_is_asked(say, recipe, team, train_set, val_set)

        run = build_run(
            recipe, team=team, out=out, train_set=train_set, weights=weights, resumed=resumed,
            interruption=interruption, say=say,
        )  # fmt: skip
        run.circumstances, run.pace = around, save_every or Pace(seconds=SAVE_EVERY)
        team.wait()  # until all have read what the one that leads may replace
        if team.leads:
            begin_folder(run, resumed, data, train_set, log)
            held.callback(run.close_journal)
            run.keep_folder = partial(keep_folder, run, data, held)
        if resumed is None:
            run.save_state()
        run.pace.saved(run.counters.step)

        held.enter_context(with_the_way_on(out))
        started = time.monotonic()
        metrics: dict[str, float] = {}
        while run.counters.epoch < settings.epochs and not _is_stopped_early(run):
            began = time.monotonic()
            begin_second_stage(run)
            _train_epoch(run, train_set, workers)
            trained, epoch = time.monotonic(), run.counters.epoch + 1
            team.follow(run.evaluated.buffers())  # on CPUs each process's norms have seen only its own images
            published = run.published
            if val_set is not None and (epoch == settings.epochs or epoch % settings.evaluate_every == 0):
                metrics = _evaluate(run, epoch, published, val_set, workers)
                evaluated = metrics
            else:
                evaluated = {}
            losses = end_epoch(run)
            seconds = {"train_seconds": trained - began, "val_seconds": time.monotonic() - trained}
            tell_epoch(run, losses, evaluated, seconds)
            _save_epoch(run, published, evaluated)
            run.leave_if_interrupted()

        counters = run.counters
        return Summary(
            out, counters.epoch, counters.step, counters.best, counters.best_epoch, metrics, _is_stopped_early(run),
            run.watch.skipped, time.monotonic() - started,
        )  # fmt: skip


def _train_epoch(run: Run, train_set: CocoDataset, workers: int) -> None:
    """All steps of the epoch that are still to be done."""
    counters, team = run.counters, run.team
    steps, groups = begin_epoch(run, train_set, workers)
    looks = ROWS_EVERY if team.device.type == "cuda" else 1
    description = f"epoch {counters.epoch + 1}/{run.recipe.train.epochs}"
    bar = progress(total=steps, description=description, unit="step", quiet=not team.leads)
    with bar:
        bar.update(counters.step_in_epoch)
        for pieces, waited in _timed(groups):
            began = time.monotonic()
            set_rates_at(run, counters.step, steps)
            with waiting(f"step {counters.step + 1}"):
                output = take_step(run, pieces)
                signal = run.interrupted_before()
            run.keep_folder()
            if signal or counters.step % looks == 0 or counters.step in LOOKS:
                tell_steps(run, run.watch.look(), steps, bar)
                answer_for_skipped(run, train_set)
            if run.card is not None:
                run.card.time(data=waited, step=time.monotonic() - began)
                fill_card(run, output, pieces[-1])
            bar.update()
            run.leave_if_interrupted(signal)
            run.save_if_due()
        run.leave_if_interrupted()
        run.save_if_older_than(SAVED_BEFORE_EVALUATION)
    run.watch.look()
    answer_for_skipped(run, train_set)


def _evaluate(
    run: Run, epoch: int, published: DetectionNetwork, val_set: CocoDataset, workers: int
) -> dict[str, float]:
    """The numbers of the averaged network on the validation split; `counters` remember the best."""
    require_best(run)
    try:
        metrics, found = validate(
            TorchRunner(published, device=run.team.device),
            val_set,
            batch_size=max(1, run.recipe.train.batch // run.team.size),
            workers=workers,
            longest_wait=run.recipe.train.longest_wait,
            is_left=lambda: run.interruption.number != 0,
        )
    except Left:
        run.leave_if_interrupted()
        raise
    run.keep_folder()
    if run.journal is not None:
        for path in draw_evaluation(run.out, val_set, metrics, found):
            run.journal.picture(path.stem, path, run.counters.step)
    numbers = {name: value for name, value in metrics.as_dict().items() if value >= 0}
    ap, counters = numbers.get("AP", 0.0), run.counters
    if counters.best is None or ap > counters.best:
        counters.best, counters.best_epoch, counters.evaluations_without_better = ap, epoch, 0
    else:
        counters.evaluations_without_better += 1
    return numbers


def _is_stopped_early(run: Run) -> bool:
    return 0 < run.recipe.train.patience <= run.counters.evaluations_without_better


def _save_epoch(run: Run, published: DetectionNetwork, metrics: dict[str, float]) -> None:
    """`last`, and `best` where this evaluation was; without any evaluation the last is the best. Then the state."""
    counters = run.counters
    if run.team.leads:
        is_best = counters.best is None or (bool(metrics) and counters.best_epoch == counters.epoch)
        for name in [LAST] + [BEST] * is_best:
            checkpoint.save_weights(run.out / name, published, run.recipe, epoch=counters.epoch, metrics=metrics)
        assert run.journal is not None
        if plots.available():
            plots.draw_results(run.journal.epochs, run.out / "results.png")
            run.journal.picture("results", run.out / "results.png", counters.step)
    if metrics:
        after_evaluation(run, metrics.get("AP", 0.0))
    run.save_state()


def _timed(groups: Iterator[list[Batch]]) -> Iterator[tuple[list[Batch], float]]:
    """Each group with the seconds it was waited for."""
    while True:
        began = time.monotonic()
        group = next(groups, None)
        if group is None:
            return
        yield group, time.monotonic() - began
