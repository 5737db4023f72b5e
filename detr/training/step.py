"""One step of the optimizer: forward and backward of its pieces, clipping, the step, the average."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from detr.errors import UsageError, counted
from detr.evaluation.pictures import draw_batch
from detr.image import as_input
from detr.records import Batch, Output
from detr.runtime.distributed import Team, apart
from detr.training.learning.statistics import Statistics
from detr.training.run import Run

PICTURES = 3  # batches that are drawn at the start


def take_step(run: Run, pieces: list[Batch]) -> Output:
    """One step of the optimizer, and the output for its last piece.

    Where a loss or gradient is not finite it is left out: weights, optimizer, average and the norms' statistics stay as
    they were, and only the number of steps goes on, in every process alike. `Watch` remembers it.
    """
    counters, settings = run.counters, run.recipe.train
    torch.manual_seed(seed_of_step(settings.seed, counters.step, run.team.rank))
    if counters.step < PICTURES and run.journal is not None:
        draw_batch(pieces[0], run.network.config.input, run.network.classes, run.out / f"batch{counters.step}.jpg")
    statistics = Statistics(run.network)
    losses, output = gradients(run, pieces)
    run.scaler.unscale_(run.optimizer)
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    counters.step += 1
    counters.step_in_epoch += 1
    broken = run.watch.note(counters.step, losses, norm, run.scaler.scale(torch.ones_like(norm)))
    if not run.scaler.is_enabled():
        run.optimizer.found_inf = broken.float()  # type: ignore[attr-defined]  # what a scaler would set
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    statistics.put_back(broken)
    if run.average is not None:
        run.average.update(unless=broken)
    return output


def gradients(run: Run, pieces: list[Batch]) -> tuple[dict[str, Tensor], Output]:
    """Forward and backward of all pieces. Together they give the gradient of the whole batch: each piece's losses are
    over its own number of targets, so it counts by its share of them."""
    shares = shares_of_pieces([sum(len(target.labels) for target in batch.targets) for batch in pieces], run.team)
    losses: dict[str, Tensor] = {}
    for place, (batch, share) in enumerate(zip(pieces, shares, strict=True)):
        batch = batch.to(run.team.device, non_blocking=True)
        images = as_input(batch.images, batch.padding, run.network.config.input)
        if run.recipe.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        is_last = place == len(pieces) - 1
        with apart(run.learner, run.team, wanted=not is_last):
            with run.precision():
                output = run.learner(images, batch.padding, batch.targets)
            answers = None if run.teacher is None else run.teacher.answers(batch, images, run.precision)
            terms = run.criterion(output, batch.targets, poisoned=True)
            if run.teacher is not None and answers is not None:
                terms |= run.teacher.losses(output, answers)
            run.scaler.scale(_to_all(sum(terms.values()) * share)).backward()
        for name, value in terms.items():
            losses[name] = losses.get(name, 0.0) + value.detach() * share
    return losses, output


def _to_all(loss: Tensor) -> Tensor:
    """The same; but if it is not finite, each gradient that comes from it will be NaN, in all processes."""
    return loss * (1 + 0 * loss.detach())


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
            f"a batch of {batch} cannot be shared by {counted(processes, 'process', 'processes')} "
            f"in {counted(pieces, 'piece')} each; "
            f"the nearest that can: {max(1, round(batch / (processes * pieces))) * processes * pieces}"
        )
    return batch // (processes * pieces)


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """A seed for the draws of one step, so that they depend on nothing that came before."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest(), "little") >> 1
