"""What a training says: what it was asked for, how far it is, and how it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from detr.data.balance import words_on_balance
from detr.data.coco import CocoDataset
from detr.data.opening import notes_for_training
from detr.errors import counted
from detr.evaluation import plots
from detr.files import write_text
from detr.records import Batch, Output
from detr.runtime.distributed import Team
from detr.runtime.progress import line_width
from detr.training.fitting import words_on_rates
from detr.training.recipe import Recipe, never_reached
from detr.training.run import Run, Say
from detr.training.told.sanity import LOOKS, matched_iou
from detr.training.told.watch import Seen

ROWS_EVERY = 20  # steps from one row of the journal to the next


def say_what_is_asked(
    say: Say, recipe: Recipe, team: Team, train_set: CocoDataset, val_set: CocoDataset | None
) -> None:
    """Classes, images, what looks wrong, and the machine."""
    annotations = train_set.annotations
    say(train_set.classes.table(annotations.counts().tolist()))
    say(f"{counted(len(train_set), 'image')} to train on, {len(val_set) if val_set is not None else 0} to evaluate on")
    per_image = [0] * len(annotations.image_ids)
    for image in annotations.image_indices[~annotations.crowd].tolist():
        per_image[image] += 1
    most = max(per_image, default=0)
    if most > recipe.model.num_queries:
        name = annotations.file_names[per_image.index(most)]
        say(f"warning: {name} has {most} boxes, more than the model's {recipe.model.num_queries} queries; "
            f"all cannot be found; model.num_queries={most} would do")  # fmt: skip
    if late := never_reached(recipe):
        say(f"warning: in {counted(recipe.train.epochs, 'epoch')} these are never reached: {', '.join(late)}; "
            "--finetune has a schedule for small data sets")  # fmt: skip
    if recipe.train.balance is not None:
        say(words_on_balance(annotations, recipe.train.balance))
    if (scaled := words_on_rates(recipe.train.optimizer, recipe.train.batch)) is not None:
        say(scaled)
    for note in notes_for_training(train_set, val_set):
        say(f"note: {note}")
    processes = f", {team.size} processes" if team.size > 1 else ""
    say(f"device {team.device}{processes}, {counted(torch.get_num_threads(), 'thread')}, PyTorch {torch.__version__}")
    if not plots.available():
        say("matplotlib is not installed, so there will be no results.png (pip install 'detr-toolkit[plots]')")


def tell_steps(run: Run, seen: list[Seen], steps: int, bar: Any) -> None:
    """A step's row in the journal, and the loss beside the bar."""
    taken = [one for one in seen if not one.skipped]
    if not taken or not run.team.leads:
        return
    last = taken[-1]
    loss = sum(last.losses.values())
    bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
    if last.step % ROWS_EVERY == 0 or last.step == 1:
        assert run.journal is not None
        rates = {f"lr {group['role']}": group["lr"] for group in run.optimizer.param_groups}
        values = {"loss": loss, "gradient_norm": last.norm, **last.losses, **rates}
        run.journal.step(last.step, last.step / steps, values)


def fill_card(run: Run, output: Output, batch: Batch) -> None:
    """The sanity card: a look at some of the first steps; said and saved after the last of them."""
    card, step = run.card, run.counters.step
    if card is None or step not in LOOKS:
        return
    if run.watch.last is not None and run.watch.last.step == step:
        matched = matched_iou(output, batch.targets, run.criterion)
        card.look(step, run.watch.last.losses, matched, [group["lr"] for group in run.optimizer.param_groups])
    if step == LOOKS[-1]:
        write_text(run.out / "sanity.txt", card.text() + "\n")
        run.say(card.text())
        run.card = None


def tell_epoch(run: Run, losses: dict[str, float], metrics: dict[str, float], seconds: dict[str, float]) -> None:
    """A line, and a row in the journal."""
    counters = run.counters
    loss = sum(losses.values())
    rate = max(group["lr"] for group in run.optimizer.param_groups)
    run.say(in_columns(_epoch(run, loss, rate, metrics, seconds), line_width()))
    if run.journal is not None:
        rounded = {name: round(value, 2) for name, value in seconds.items()}
        skipped = {"skipped": run.watch.skipped} if run.watch.skipped else {}
        values = {"loss": loss, "lr": rate, **losses, **metrics, **skipped, **rounded}
        run.journal.epoch(counters.step, counters.epoch, values)


def _epoch(
    run: Run, loss: float, rate: float, metrics: dict[str, float], seconds: dict[str, float]
) -> dict[str, Sequence[str]]:
    """The columns of an epoch's line, each with its shorter forms."""
    counters, epochs = run.counters, run.recipe.train.epochs
    columns: dict[str, Sequence[str]] = {
        "epoch": [f"epoch {counters.epoch:3d}/{epochs}"],
        "loss": [f"loss {loss:8.4f}"],
    }
    if metrics:
        best = f"best {counters.best:.4f}"
        columns["AP"] = [f"AP {metrics.get('AP', 0):.4f}"]
        columns["AP50"] = [f"AP50 {metrics.get('AP50', 0):.4f}", ""]
        columns["best"] = [f"{best} (epoch {counters.best_epoch})", best, ""]
    columns["lr"] = [f"lr {rate:.2e}", ""]
    spent = " + ".join(in_words(part) for part in seconds.values())
    if counters.epoch == epochs:
        columns["time"] = [spent, in_words(sum(seconds.values()))]
    else:
        left = in_words((epochs - counters.epoch) * sum(seconds.values()))
        columns["time"] = [f"{spent}, about {left} left", f"{left} left"]
    return columns


_SHORTENED = ("lr", "AP50", "time", "best", "best")  # the first is missed least


def in_columns(columns: Mapping[str, Sequence[str]], width: int | None) -> str:
    """Side by side; where that is wider than the terminal, some in their shorter forms, which may be empty."""
    forms = dict.fromkeys(columns, 0)
    line = ""
    for shortened in (None, *_SHORTENED):
        if shortened in forms:
            forms[shortened] += 1
        line = "  ".join(text for name, form in forms.items() if (text := columns[name][form]))
        if width is None or len(line) <= width:
            break
    return line


def in_words(seconds: float) -> str:
    """`4s`, `3m20s`, `2h05m`"""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
