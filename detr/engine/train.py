"""The training program, to be read from top to bottom."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detr import models
from detr.config import as_yaml
from detr.criterion import Criterion, criterion_for
from detr.data.coco import CocoDataset
from detr.data.loader import train_loader
from detr.data.opening import notes_for_training
from detr.engine import checkpoint, plots
from detr.engine.average import Average
from detr.engine.checkpoint import BEST, LAST, RECIPE, RESUME, Counters, Resumed
from detr.engine.device import choose_device, default_workers
from detr.engine.distributed import Team, joined, shared
from detr.engine.freeze import freeze
from detr.engine.interruption import Interruption, noticed
from detr.engine.journal import Journal
from detr.engine.optimizer import Group, build_optimizer, groups_by_role, rate_factor, set_rates, table
from detr.engine.pictures import draw_batch
from detr.engine.progress import progress
from detr.engine.recipe import Recipe
from detr.engine.sanity import LOOKS, SanityCard, matched_iou
from detr.engine.start import start_from, warning_of_fresh_norms
from detr.engine.validate import validate
from detr.engine.watch import Diverged, Seen, Watch
from detr.errors import UsageError
from detr.files import require_writable, write_text
from detr.models.rtdetr import RTDETRNetwork
from detr.records import Batch, Output

PICTURES = 3  # batches that are drawn at the start
ROWS_EVERY = 20  # steps from one row of the journal to the next

Say = Callable[[str], None]


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
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


@dataclass(eq=False)
class Run:
    """Everything a step touches."""

    recipe: Recipe
    team: Team
    out: Path
    network: RTDETRNetwork
    learner: Any  # the network, or its wrapper in a team
    frozen: list[nn.Module]
    average: Average[RTDETRNetwork] | None
    criterion: Criterion
    optimizer: torch.optim.AdamW
    names: list[str]  # of the optimizer's parameters, in its order
    scaler: torch.amp.GradScaler
    precision: Callable[[], AbstractContextManager[Any]]
    watch: Watch
    interruption: Interruption
    say: Say
    counters: Counters = field(default_factory=Counters)
    journal: Journal | None = None  # only where the team is led
    card: SanityCard | None = None


def train(
    recipe: Recipe,
    *,
    train_set: CocoDataset,
    val_set: CocoDataset | None,
    out: str | PathLike[str],
    weights: str | None = None,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    say: Say = print,
) -> Summary:
    """Train `recipe` and leave weights, journal and pictures in the folder `out`.

    `weights` (a release or a file) to start from; `resume` goes on with what `out` holds. Every draw is a function of
    the recipe's seed, so the same call gives the same weights on the same machine, and a resumed run those of one that
    was never stopped. SIGINT and SIGTERM: the step is finished, the state saved, and the signal raised again.
    Diverged: a loss or gradient is not finite; the step was not taken.
    """
    out = Path(out)
    with joined(choose_device(device)) as team, noticed() as interruption:
        settings = recipe.train
        say = say if team.leads else _say_nothing
        require_writable(out)
        workers = default_workers(team.size) if workers is None else workers
        resumed = checkpoint.read_resume(out) if resume else None
        _say_what_is_asked(say, recipe, team, train_set, val_set)

        torch.manual_seed(settings.seed)
        network = models.build_model(recipe.model, classes=train_set.classes)
        if weights is not None and resumed is None:
            say(start_from(network, weights).text)
        elif resumed is None and recipe.model.backbone.frozen_norms:
            say(warning_of_fresh_norms(recipe.model.backbone))
        frozen = freeze(network, settings.freeze)
        network.to(team.device)
        if settings.channels_last:
            network.to(memory_format=torch.channels_last)
        learner = shared(network, team)
        groups = groups_by_role(network, settings.optimizer)
        say(table(groups))
        run = _assemble(recipe, team, out, network, learner, frozen, groups, interruption, say)
        if resumed is not None:
            _go_on(run, resumed)
        if team.leads:
            write_text(out / RECIPE, as_yaml(recipe.as_tree()))
            run.journal = Journal(out, since_step=run.counters.step)
            run.card = SanityCard() if run.counters.step == 0 else None

        started = time.monotonic()
        metrics: dict[str, float] = {}
        stop_early = False
        while run.counters.epoch < settings.epochs and not stop_early:
            began = time.monotonic()
            losses = _train_epoch(run, train_set, workers)
            trained = time.monotonic()
            last_one = run.counters.epoch == settings.epochs
            if val_set is not None and (last_one or run.counters.epoch % settings.evaluate_every == 0):
                metrics = _evaluate(run, val_set, workers)
                stop_early = 0 < settings.patience <= run.counters.evaluations_without_better
                evaluated = metrics
            else:
                evaluated = {}
            seconds = {"train_seconds": trained - began, "val_seconds": time.monotonic() - trained}
            _finish_epoch(run, losses, evaluated, seconds)
            _leave_if_interrupted(run)

        if team.leads and run.journal is not None:
            run.journal.close()
        counters = run.counters
        return Summary(
            out, counters.epoch, counters.step, counters.best, counters.best_epoch, metrics, stop_early,
            time.monotonic() - started,
        )  # fmt: skip


def _train_epoch(run: Run, train_set: CocoDataset, workers: int) -> dict[str, float]:
    """All steps of the epoch that are still to be done -> the mean of each loss."""
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
    )
    steps = counters.step_in_epoch + math.ceil(len(loader) / settings.accumulate)
    looks = ROWS_EVERY if team.device.type == "cuda" else 1
    run.learner.train()
    for module in run.frozen:
        module.eval()
    description = f"epoch {counters.epoch + 1}/{settings.epochs}"
    with progress(total=steps, description=description, unit="step", quiet=not team.leads) as bar:
        bar.update(counters.step_in_epoch)
        for pieces, waited in _timed(_together(loader, settings.accumulate)):
            began = time.monotonic()
            factor = rate_factor(settings.schedule, counters.step, steps_per_epoch=steps, epochs=settings.epochs)
            set_rates(run.optimizer, factor)
            output = _step(run, pieces)
            if counters.step % looks == 0 or counters.step in LOOKS:
                _tell(run, run.watch.look(), steps, bar)
            if run.card is not None:
                run.card.time(data=waited, step=time.monotonic() - began)
                _fill_card(run, output, pieces[-1])
            bar.update()
            _leave_if_interrupted(run)
    counters.epoch += 1
    counters.step_in_epoch = 0
    return run.watch.means()


def _step(run: Run, pieces: list[Batch]) -> Output:
    """One step of the optimizer, and the output for its last piece."""
    counters, settings = run.counters, run.recipe.train
    torch.manual_seed(seed_of_step(settings.seed, counters.step, run.team.rank))
    if counters.step < PICTURES and run.team.leads:
        draw_batch(pieces[0], run.network.config.input, run.network.classes, run.out / f"batch{counters.step}.jpg")
    losses, output = _gradients(run, pieces)
    run.scaler.unscale_(run.optimizer)
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf)
    counters.step += 1
    counters.step_in_epoch += 1
    run.watch.note(counters.step, losses, norm)
    if not run.scaler.is_enabled():
        run.optimizer.found_inf = run.watch.blocked  # type: ignore[attr-defined]  # what a scaler would set
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.average is not None:
        run.average.update(run.network)
    return output


def _gradients(run: Run, pieces: list[Batch]) -> tuple[dict[str, Tensor], Output]:
    """Forward and backward of all pieces. Together they give the gradient of the whole batch: each piece's losses are
    over its own number of targets, so it counts by its share of them."""
    shares = shares_of_pieces([sum(len(target.labels) for target in batch.targets) for batch in pieces], run.team)
    losses: dict[str, Tensor] = {}
    for place, (batch, share) in enumerate(zip(pieces, shares, strict=True)):
        batch = batch.to(run.team.device, non_blocking=True)
        images = batch.images
        if run.recipe.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        is_last = place == len(pieces) - 1
        with nullcontext() if is_last or run.team.size == 1 else run.learner.no_sync():
            with run.precision():
                output = run.learner(images, batch.padding, batch.targets)
            try:
                terms = run.criterion(output, batch.targets)
            except FloatingPointError as problem:
                raise Diverged(f"step {run.counters.step + 1}: {problem}") from None
            run.scaler.scale(sum(terms.values()) * share).backward()
        for name, value in terms.items():
            losses[name] = losses.get(name, 0.0) + value.detach() * share
    return losses, output


def shares_of_pieces(counts: list[int], team: Team) -> list[float]:
    """How much each piece counts: its normaliser over that of all pieces, both at least 1 (see `Criterion`)."""
    if len(counts) == 1:
        return [1.0]
    means = [max(1.0, team.total(count) / team.size) for count in counts]
    whole = max(1.0, team.total(sum(counts)) / team.size)
    return [mean / whole for mean in means]


def share_of_batch(batch: int, processes: int, pieces: int) -> int:
    """Images a process loads at a time; UsageError unless the batch divides."""
    if batch % (processes * pieces):
        raise UsageError(
            f"a batch of {batch} cannot be shared by {processes} processes in {pieces} pieces each; "
            f"the nearest that can: {max(1, round(batch / (processes * pieces))) * processes * pieces}"
        )
    return batch // (processes * pieces)


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """A seed for the draws of one step, so that they depend on nothing that came before."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest(), "little") >> 1


def _together(batches: Iterable[Batch], pieces: int) -> Iterator[list[Batch]]:
    """Batches in lists of `pieces`; the last list may be shorter."""
    batches = iter(batches)
    while group := list(islice(batches, pieces)):
        yield group


def _timed(groups: Iterator[list[Batch]]) -> Iterator[tuple[list[Batch], float]]:
    """Each group with the seconds it was waited for."""
    while True:
        began = time.monotonic()
        group = next(groups, None)
        if group is None:
            return
        yield group, time.monotonic() - began


def _assemble(
    recipe: Recipe,
    team: Team,
    out: Path,
    network: RTDETRNetwork,
    learner: nn.Module,
    frozen: list[nn.Module],
    groups: list[Group],
    interruption: Interruption,
    say: Say,
) -> Run:
    dtype = precision_of(recipe.train.amp, team.device)
    scaler = torch.amp.GradScaler(team.device.type, enabled=dtype is torch.float16)
    return Run(
        recipe=recipe,
        team=team,
        out=out,
        network=network,
        learner=learner,
        frozen=frozen,
        average=None if recipe.train.average is None else Average(network, recipe.train.average),
        criterion=criterion_for(network, recipe.criterion),
        optimizer=build_optimizer(groups, recipe.train.optimizer),
        names=[name for group in groups for name in group.names],
        scaler=scaler,
        precision=nullcontext if dtype is None else lambda: torch.autocast(team.device.type, dtype),
        watch=Watch(team.device, gradients_may_overflow=scaler.is_enabled()),
        interruption=interruption,
        say=say,
    )


def precision_of(amp: str, device: torch.device) -> torch.dtype | None:
    """The type of automatic mixed precision; None for none. UsageError for fp16 on a CPU, which has no use for it."""
    if amp == "off" or (amp == "auto" and device.type == "cpu"):
        return None
    if amp == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    if amp == "fp16" and device.type == "cpu":
        raise UsageError("train.amp=fp16 needs a GPU; on a CPU use bf16 or off")
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def _go_on(run: Run, resumed: Resumed) -> None:
    checkpoint.restore(
        resumed, network=run.network, average=run.average, optimizer=run.optimizer, names=run.names, scaler=run.scaler
    )
    run.counters = resumed.counters
    done, steps = run.counters.epoch, run.counters.step_in_epoch
    run.say(
        f"going on after epoch {done}{f' and {steps} steps of the next' if steps else ''} ({run.counters.step} steps)"
    )


def _evaluate(run: Run, val_set: CocoDataset, workers: int) -> dict[str, float]:
    """The numbers of the averaged network on the validation split; `counters` remember the best."""
    network = run.network if run.average is None else run.average.network
    network.eval()
    metrics, _ = validate(
        network,
        val_set,
        device=run.team.device,
        batch_size=max(1, run.recipe.train.batch // run.team.size),
        workers=workers,
    )
    numbers = {name: value for name, value in metrics.as_dict().items() if value >= 0}
    ap, counters = numbers.get("AP", 0.0), run.counters
    if counters.best is None or ap > counters.best:
        counters.best, counters.best_epoch, counters.evaluations_without_better = ap, counters.epoch, 0
    else:
        counters.evaluations_without_better += 1
    return numbers


def _finish_epoch(run: Run, losses: dict[str, float], metrics: dict[str, float], seconds: dict[str, float]) -> None:
    """Say, write down and save what the epoch brought."""
    counters, epochs = run.counters, run.recipe.train.epochs
    loss = sum(losses.values())
    rate = max(group["lr"] for group in run.optimizer.param_groups)
    said = f"epoch {counters.epoch:3d}/{epochs}  loss {loss:8.4f}"
    if metrics:
        said += f"  AP {metrics.get('AP', 0):.4f}  AP50 {metrics.get('AP50', 0):.4f}"
        said += f"  best {counters.best:.4f} (epoch {counters.best_epoch})"
    left = (epochs - counters.epoch) * sum(seconds.values())
    said += f"  lr {rate:.2e}  {' + '.join(in_words(part) for part in seconds.values())}, about {in_words(left)} left"
    run.say(said)
    if run.team.leads:
        assert run.journal is not None
        row = {
            "loss": loss,
            "lr": rate,
            **losses,
            **metrics,
            **{name: round(value, 2) for name, value in seconds.items()},
        }
        run.journal.epoch(counters.step, counters.epoch, row)
        _save_weights(run, metrics)
        if plots.available():
            plots.draw_results(run.journal.epochs, run.out / "results.png")
    _save_state(run)


def _save_weights(run: Run, metrics: dict[str, float]) -> None:
    """`last`, and `best` where this evaluation was; without any evaluation the last is the best."""
    counters = run.counters
    network = run.network if run.average is None else run.average.network
    for name in [LAST] + [BEST] * (counters.best is None or (bool(metrics) and counters.best_epoch == counters.epoch)):
        checkpoint.save_weights(run.out / name, network, run.recipe, epoch=counters.epoch, metrics=metrics)


def _save_state(run: Run) -> None:
    if run.team.leads:
        checkpoint.save_resume(
            run.out / RESUME,
            network=run.network,
            average=run.average,
            optimizer=run.optimizer,
            names=run.names,
            scaler=run.scaler,
            counters=run.counters,
            recipe=run.recipe,
        )
    run.team.wait()


def _leave_if_interrupted(run: Run) -> None:
    """After a SIGINT or SIGTERM to any process of the team: save in all, then let the signal do what it does."""
    number = round(run.team.largest(run.interruption.number))
    if not number:
        return
    run.watch.look()
    _save_state(run)
    run.say(f"stopped after step {run.counters.step}; go on with: detr train --resume {run.out}")
    run.interruption.act(number)


def _tell(run: Run, seen: list[Seen], steps: int, bar: Any) -> None:
    """A step's row in the journal, and the loss beside the bar."""
    if not seen or not run.team.leads:
        return
    last = seen[-1]
    loss = sum(last.losses.values())
    bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
    if last.step % ROWS_EVERY == 0 or last.step == 1:
        assert run.journal is not None
        rates = {f"lr {group['role']}": group["lr"] for group in run.optimizer.param_groups}
        values = {"loss": loss, "gradient_norm": last.norm, **last.losses, **rates}
        run.journal.step(last.step, last.step / steps, values)


def _fill_card(run: Run, output: Output, batch: Batch) -> None:
    """The sanity card: a look at some of the first steps; said and saved after the last of them."""
    card, step = run.card, run.counters.step
    if card is None or step not in LOOKS:
        return
    assert run.watch.last is not None
    losses = run.watch.last.losses
    matched = matched_iou(output, batch.targets, run.recipe.criterion.matcher)
    card.look(step, losses, matched, [group["lr"] for group in run.optimizer.param_groups])
    if step == LOOKS[-1]:
        write_text(run.out / "sanity.txt", card.text() + "\n")
        run.say(card.text())
        run.card = None


def _say_what_is_asked(
    say: Say, recipe: Recipe, team: Team, train_set: CocoDataset, val_set: CocoDataset | None
) -> None:
    annotations = train_set.annotations
    say(train_set.classes.table(annotations.counts().tolist()))
    say(f"{len(train_set)} images to train on, {len(val_set) if val_set is not None else 0} to evaluate on")
    per_image = [0] * len(annotations.image_ids)
    for image in annotations.image_indices[~annotations.crowd].tolist():
        per_image[image] += 1
    most = max(per_image, default=0)
    if most > recipe.model.num_queries:
        name = annotations.file_names[per_image.index(most)]
        say(f"warning: {name} has {most} boxes, more than the model's {recipe.model.num_queries} queries; "
            f"all cannot be found; model.num_queries={most} would do")  # fmt: skip
    for note in notes_for_training(train_set, val_set):
        say(f"note: {note}")
    processes = f", {team.size} processes" if team.size > 1 else ""
    say(f"device {team.device}{processes}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    if not plots.available():
        say("matplotlib is not installed, so there will be no results.png (pip install 'detr-toolkit[plots]')")


def in_words(seconds: float) -> str:
    """`4s`, `3m20s`, `2h05m`"""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _say_nothing(line: str) -> None:
    pass
