"""A search for settings: trainings one after the other, each with settings that Optuna chooses by those before.

What is known is in `study.db` (SQLite) from the first moment, so that a search goes on wherever it was stopped.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from detr.errors import InputError, UsageError
from detr.extras import require
from detr.files import write_bytes, written_aside
from detr.training.saved.checkpoint import RECIPE
from detr.training.saved.occupied import occupied
from detr.tuning.search_space import Dimension

STUDY, TABLE, BEST_RECIPE = "study.db", "trials.csv", "best.yaml"
_FIRST_TRIALS = 4  # whose epochs are what later ones are held against
_MOST_FAILURES = 3  # in a row


class Training(Protocol):
    folder: Path

    def epochs(self) -> Iterator[tuple[int, float]]: ...

    def stop(self) -> None: ...


Start = Callable[[int, list[str]], Training]


@dataclass(frozen=True)
class Tuned:
    """What came of a search."""

    folder: Path
    table: str
    best: int | None  # the number of the best trial
    best_ap: float | None
    best_words: tuple[str, ...]


def tune(
    space: Sequence[Dimension],
    start: Start,
    *,
    folder: Path,
    about: Mapping[str, Any],
    trials: int,
    epochs: int,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Tuned:
    """Train until `trials` of them have ended; `start(number, words)` begins one. The best AP of an epoch counts.

    A training that after a quarter of its `epochs` is below the median of the others at the same epoch is stopped
    (Golovin et al. 2017, Vizier). `about` says what is searched: going on in a folder with another is refused. One that
    was under way when the search was stopped begins anew. InputError if three fail in a row, UsageError for one that
    was asked wrongly.
    """
    require("tune", "tuning")
    folder.mkdir(parents=True, exist_ok=True)
    with occupied(folder), _known(folder / STUDY):
        study = _study(folder, about, seed, epochs)
        _take_up(study, say)
        failures = 0
        while (number := _ended(study)) < trials:
            trial = study.ask()
            words = [dimension.choose(trial) for dimension in space]
            trial.set_user_attr("words", words)
            say(f"trial {number + 1}/{trials}  {' '.join(words)}")
            failures = 0 if _take(study, trial, start(trial.number, words), say) else failures + 1
            _keep(study, folder)
            if failures == _MOST_FAILURES:
                reason = _newest(study).user_attrs["reason"]
                raise InputError(f"{failures} trials in a row failed; the last said: {reason}")
        return _keep(study, folder)


@contextmanager
def _known(path: Path) -> Iterator[None]:
    """InputError where what is known of the search can't be read or kept."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as problem:
        cause = problem.__cause__ or problem
        raise InputError(f"{path} can't be used: {getattr(cause, 'orig', None) or cause}") from problem


def _study(folder: Path, about: Mapping[str, Any], seed: int, epochs: int) -> Any:
    import optuna
    from sqlalchemy.pool import NullPool

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Not by an address: a folder's name may hold what means something else there, such as ? or %.
    creator = partial(sqlite3.connect, folder.absolute() / STUDY)
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": creator, "poolclass": NullPool}),
        study_name="detr",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_FIRST_TRIALS, n_warmup_steps=max(1, epochs // 4)),
    )
    # Another seed each time that the search goes on: it must not draw again what it has drawn.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    now, before = json.dumps(dict(about), sort_keys=True), study.user_attrs.get("about")
    if before is None:
        study.set_user_attr("about", now)
    elif before != now:
        changed = [key for key, value in json.loads(before).items() if about.get(key) != value] or list(about)
        raise UsageError(f"{folder} holds a search with another {changed[0]}; choose another --name")
    return study


def _take_up(study: Any, say: Callable[[str], None]) -> None:
    """Trials under way when the search was stopped are given up, and their settings tried first."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
            say(f"trial {trial.number} was stopped before its end, and begins anew")


def _take(study: Any, trial: Any, training: Training, say: Callable[[str], None]) -> bool:
    """One training to its end; whether it came to one that counts. One that is interrupted stays under way."""
    from optuna.trial import TrialState

    best = None
    try:
        for epoch, ap in training.epochs():
            best = ap if best is None else max(best, ap)
            trial.report(ap, epoch)
            if trial.should_prune():
                say(f"  stopped after epoch {epoch} with AP {best:.4f}: below the median of the others")
                study.tell(trial, state=TrialState.PRUNED)
                return True
        if best is None:
            raise InputError("no epoch was evaluated; a search needs a val split")
    except UsageError:
        study.tell(trial, state=TrialState.FAIL)
        raise
    except InputError as problem:
        trial.set_user_attr("reason", str(problem))
        study.tell(trial, state=TrialState.FAIL)
        say(f"  failed: {problem}")
        return False
    finally:
        training.stop()
    trial.set_user_attr("folder", str(training.folder))
    study.tell(trial, best)
    say(f"  AP {best:.4f}; the best is {study.best_value:.4f} of trial {study.best_trial.number}")
    return True


def _ended(study: Any) -> int:
    """Trials that came to an end by themselves; those that were given up with the search don't count."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    return sum(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "reason" in trial.user_attrs for trial in trials
    )


def _newest(study: Any) -> Any:
    return study.get_trials(deepcopy=False)[-1]


def _keep(study: Any, folder: Path) -> Tuned:
    """The table of all trials, and the best one's recipe."""
    from optuna.trial import TrialState

    rows = []
    for trial in study.get_trials(deepcopy=False):
        seen = trial.intermediate_values
        rows.append({
            "trial": trial.number, "state": _state(trial), "epochs": len(seen),
            "AP": round(max(seen.values()), 4) if seen else "", **trial.params,
        })  # fmt: skip
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    sheet = csv.DictWriter(text, columns, restval="")
    sheet.writeheader()
    sheet.writerows(rows)
    write_bytes(folder / TABLE, text.getvalue().encode())
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return Tuned(folder, _table(columns, rows), None, None, ())
    best = study.best_trial
    with written_aside(folder / BEST_RECIPE) as aside:
        shutil.copyfile(Path(best.user_attrs["folder"]) / RECIPE, aside)
    return Tuned(folder, _table(columns, rows), best.number, best.value, tuple(best.user_attrs["words"]))


def _state(trial: Any) -> str:
    """A trial that failed without a reason is one that was under way when the search was stopped."""
    name = trial.state.name.lower()
    return name if name != "fail" else ("failed" if "reason" in trial.user_attrs else "stopped")


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Best first."""
    ranked = sorted(rows, key=lambda row: -1.0 if row["AP"] == "" else row["AP"], reverse=True)
    cells = [list(columns), *([_cell(row.get(name, "")) for name in columns] for row in ranked)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
