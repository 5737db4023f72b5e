"""How large a batch may be: as many images as the memory takes, tried on a GPU, reckoned on a CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from detr.config import Config
from detr.data.balance import epoch_length
from detr.data.coco import CocoDataset
from detr.data.loader import input_size
from detr.data.sizes import spread_sides
from detr.records import Batch, Target
from detr.runtime.determinism import same_bits
from detr.runtime.distributed import Team
from detr.runtime.interruption import Interruption
from detr.runtime.memory import Memory, free_memory
from detr.training.assembly import build_run
from detr.training.recipe import Recipe
from detr.training.run import Run, scaler_for
from detr.training.step import take_step

LEAST_STEPS = 20  # of an epoch: a network learns by steps, and few images in large batches make few
LARGEST = 1024
SHARE_OF_GPU = 0.9  # of what is free; kernels chosen anew and fragments take the rest
SHARE_OF_RAM = 0.5  # loader processes and everything else on the machine need the rest

Fits = Callable[[int], bool]
Costs = Callable[[int], int | None]


@dataclass(frozen=True)
class Chosen:
    """A batch, and why just that one in a line."""

    batch: int
    text: str


def choose_batch(recipe: Recipe, train_set: CocoDataset, device: torch.device) -> Chosen:
    """The batch for `recipe` on this device, in one process; the recipe's own one doesn't count on a GPU."""
    pieces = recipe.train.accumulate
    most = max(1, min(LARGEST, epoch_length(train_set.annotations, recipe.train.balance) // LEAST_STEPS) // pieces)
    with same_bits(recipe.train.deterministic):
        if device.type == "cuda":
            with _limited(device):
                chosen = by_trying(_trial(recipe, train_set, device), most, torch.cuda.get_device_name(device))
        else:
            chosen = by_reckoning(
                _cost(recipe, train_set, device), min(most, max(1, recipe.train.batch // pieces)), free_memory()
            )
    return Chosen(chosen.batch * pieces, chosen.text + (f"; {pieces} such pieces" if pieces > 1 else ""))


def by_trying(fits: Fits, most: int, device: str) -> Chosen:
    """The largest batch up to `most` that `fits`, to an eighth: twice as many each time, then between the last two.

    A batch of 1 is taken even if it doesn't fit: the training then fails and says with what.
    """
    good, bad = 0, None
    trial = 1
    while bad is None and good < most:
        if fits(trial):
            good, trial = trial, min(most, 2 * trial)
        else:
            bad = trial
    while bad is not None and bad - good > max(1, good // 8):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    if bad is None:
        return Chosen(good, f"batch {good}: fits into {device}; more would make less than {LEAST_STEPS} steps an epoch")
    return Chosen(
        max(1, good), f"batch {max(1, good)}: {bad} took more than {SHARE_OF_GPU:.0%} of what is free on {device}"
    )


def by_reckoning(cost: Costs, most: int, free: int | None) -> Chosen:
    """At most `most`, as on a CPU more at once is no faster; less where the bytes that steps of 1 and 2 images take say
    that so many don't fit into half of what is free."""
    one = None if free is None or most == 1 else cost(1)
    two = None if one is None else cost(2)
    if one is None or two is None or free is None:
        return Chosen(most, f"batch {most}: the recipe's, or as many as make {LEAST_STEPS} steps an epoch")
    each = max(1, two - one, one // 4)  # a step of 1 has parts that a step of 2 doesn't have twice
    room = int((free * SHARE_OF_RAM - one) / each) + 1
    batch = max(1, min(most, room))
    return Chosen(
        batch,
        f"batch {batch}: an image takes about {each / 1e9:.2g} GB of the {free / 1e9:.1f} GB free"
        + ("" if batch < most else "; on a CPU more at once are no faster"),
    )


def largest_batch_of(recipe: Recipe, train_set: CocoDataset, count: int) -> Batch:
    """`count` images as large as the recipe may draw them, with as many boxes each as any image has; noise."""
    input, scales = recipe.model.input, recipe.train.scales
    sides = spread_sides(input, scales) if isinstance(scales, int) else scales
    height, width = input_size(input, max(sides)) if sides else input.frame
    if input.keeps_aspect:
        height = width = input.long
    known = train_set.annotations
    per_image = torch.bincount(torch.from_numpy(known.image_indices[~known.crowd]), minlength=1)
    boxes = torch.full((max(1, int(per_image.max())), 4), 0.4)
    target = Target(labels=torch.zeros(len(boxes), dtype=torch.int64), boxes=boxes)
    padding = torch.zeros(count, height, width, dtype=torch.bool) if input.keeps_aspect else None
    return Batch(
        torch.randint(0, 256, (count, input.channels, height, width), dtype=torch.uint8), padding, [target] * count
    )


def fits(run: Run, batch: Batch) -> bool:
    """Whether two steps with the batch, the second with all that the optimizer keeps, have room in the memory."""
    try:
        for _ in range(2):
            take_step(run, [batch])
        return True
    except torch.OutOfMemoryError:  # nothing of the trial is used, whatever state it is left in
        run.scaler = scaler_for(run.team.device, enabled=run.scaler.is_enabled())  # one in mid-step refuses the next
        return False
    finally:
        run.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if run.team.device.type == "cuda":
            torch.cuda.empty_cache()


def _trial(recipe: Recipe, train_set: CocoDataset, device: torch.device) -> Fits:
    run = _run_for_trials(recipe, train_set, device)
    return lambda count: fits(run, largest_batch_of(recipe, train_set, count))


def _cost(recipe: Recipe, train_set: CocoDataset, device: torch.device) -> Costs:
    """The bytes that a step of so many images takes beyond what the network and its optimizer take."""
    run: list[Run] = []

    def bytes_of(count: int) -> int | None:
        if not run:
            run.append(_run_for_trials(recipe, train_set, device))
            fits(run[0], largest_batch_of(recipe, train_set, 1))
        memory = Memory()
        take_step(run[0], [largest_batch_of(recipe, train_set, count)])
        return memory.most(device)

    return bytes_of


def _run_for_trials(recipe: Recipe, train_set: CocoDataset, device: torch.device) -> Run:
    """As the training builds it, but of random weights, and without a compiler's minutes for each size."""
    backbone: Config = recipe.model.backbone
    if getattr(backbone, "pretrained", False):
        backbone = backbone.model_copy(update={"pretrained": False})
    plain = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"backbone": backbone}),
            "train": recipe.train.model_copy(update={"compile": False, "accumulate": 1}),
        }
    )
    return build_run(
        plain, team=Team(0, 1, device), out=Path(), train_set=train_set, weights=None, resumed=None,
        interruption=Interruption({}), say=lambda line: None,
    )  # fmt: skip


@contextmanager
def _limited(device: torch.device) -> Iterator[None]:
    """Inside, this process gets no more than a share of what is free now; what it took is given back after."""
    free, total = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction(SHARE_OF_GPU * free / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        gc.collect()
        torch.cuda.empty_cache()
