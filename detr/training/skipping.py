"""Steps that were left out because a loss or gradient was not finite: told, kept for a replay, and not too many."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from detr.data.coco import CocoDataset
from detr.errors import InputError, listed
from detr.records import Batch
from detr.training.epoch import begin_epoch
from detr.training.learning.sharding import first_not_finite
from detr.training.learning.statistics import Statistics
from detr.training.replay import cause_of_step, keep
from detr.training.run import Run
from detr.training.told.watch import Diverged, Seen

EXPLAINED = 20  # steps of a run whose cause is looked for, each of which takes about as long as a step
_ADVICE = "a smaller learning rate, a longer warm-up or train.amp=off may help"


@dataclass(frozen=True)
class _Told:
    """What one process has to say of a step."""

    reason: str
    cause: str
    images: list[str]
    file: str


def answer_for_skipped(run: Run, train_set: CocoDataset) -> None:
    """Say which steps were left out since the last call and why; all processes of the team at once.

    Diverged: more in a row than the recipe allows, or a weight is not finite, which no step can mend.
    """
    found = run.watch.unanswered()
    if not found:
        return
    allowed = run.recipe.train.skip_at_most
    damaged = next(filter(None, run.team.gathered(first_not_finite(run.network))), None)
    is_end = damaged is not None or any(seen.skipped > allowed for seen in found)
    explained = is_end or run.watch.skipped <= EXPLAINED
    for seen in found[:-1]:
        _say(run, seen, [_Told(seen.reason, "", [], "")])
    last = found[-1]
    told = run.team.gathered(_explained(run, train_set, last) if explained else _Told(last.reason, "", [], ""))
    if not is_end:
        return _say(run, last, told)
    _note(run, last, told)
    if damaged is not None:
        what = "the weights themselves are not finite, and no step can be taken with them"
        way = "begin anew, or go on from a state saved before"
    else:
        what = f"{max(seen.skipped for seen in found)} steps in a row could not be taken"
        way = f"go on from the last saved state with: detr train --resume {run.out} --allow-changes train.amp=off"
    raise Diverged(last.step, f"{what}: {_words(told)}; {_ADVICE}; {way}")


def pieces_of_step(run: Run, train_set: CocoDataset, step: int) -> list[Batch]:
    """What this process had, or has, of a step of the epoch under way."""
    before = run.counters.step, run.counters.step_in_epoch
    run.counters.step_in_epoch -= run.counters.step - (step - 1)
    run.counters.step = step - 1
    try:
        return [piece.to(run.team.device) for piece in next(begin_epoch(run, train_set, workers=0)[1])]
    finally:
        run.counters.step, run.counters.step_in_epoch = before


def _explained(run: Run, train_set: CocoDataset, seen: Seen) -> _Told:
    pieces = pieces_of_step(run, train_set, seen.step)
    reason, file = seen.reason, ""
    try:
        file = str(keep(run, pieces, seen.step))
    except InputError as unwritable:
        reason += f"; {unwritable}"
    statistics = Statistics(run.network)
    cause = cause_of_step(run, pieces, seen.step)
    statistics.put_back(torch.ones((), dtype=torch.bool, device=run.team.device))
    run.optimizer.zero_grad(set_to_none=True)
    names = dict(zip(train_set.annotations.image_ids, train_set.annotations.file_names, strict=True))
    images = [names.get(target.image_id, str(target.image_id)) for piece in pieces for target in piece.targets]
    where = "" if cause is None else str(replace(cause, images=tuple(names.get(id, id) for id in cause.images)))
    return _Told(reason, where, images, file)


def _say(run: Run, seen: Seen, told: list[_Told]) -> None:
    run.say(
        f"warning: step {seen.step} is left out, and nothing has changed by it: {_words(told)} "
        f"({seen.skipped} in a row; at most {run.recipe.train.skip_at_most} may be)"
    )
    _note(run, seen, told)


def _note(run: Run, seen: Seen, told: list[_Told]) -> None:
    if run.journal is not None:
        images = [name for each in told for name in each.images]
        run.journal.skipped(seen.step, {"reason": _why(told), "images": images, "in_a_row": seen.skipped})


def _words(told: list[_Told]) -> str:
    """Of the process that can say where it began, if one can."""
    chosen = _chosen(told)
    words = _why(told)
    if chosen.images:
        words += f"; its images: {listed(chosen.images, 4)}"
    if chosen.file:
        words += f"; take it again with: detr train --replay {chosen.file}"
    return words


def _why(told: list[_Told]) -> str:
    chosen = _chosen(told)
    return chosen.reason + (f"; not finite first in {chosen.cause}" if chosen.cause else "")


def _chosen(told: list[_Told]) -> _Told:
    return next((each for each in told if each.cause), told[0])
