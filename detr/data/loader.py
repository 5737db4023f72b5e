"""Batches for training and validation: a function of the seed, the epoch and the step, whatever the workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, get_worker_info

from detr.data.balance import repeat_factors, repeated
from detr.data.coco import CocoDataset
from detr.data.mixing import mix
from detr.data.mosaic import mosaic, part_side
from detr.data.sample import Sample, drawing_from, uniform, whole
from detr.data.sizes import drawn_input, spread_sides
from detr.data.standstill import Standstill, Whereabouts, no_room_for
from detr.data.transforms import AugmentConfig, augment, to_network
from detr.errors import InputError
from detr.image import STRIDE, InputConfig, normalise, padded
from detr.patience import LONGEST
from detr.records import Batch, Target

_ORDER, _SCALE, _MOSAIC, _SIZE, _MIX = 1, 2, 3, 4, 5  # keep the draws of different things apart

Step = tuple[int, list[int]]  # (number of the step, indices of its images)


def train_loader(
    dataset: CocoDataset,
    *,
    input: InputConfig,
    augment: AugmentConfig,
    batch_size: int,
    seed: int,
    epoch: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    scales: Sequence[int] | int = (),
    first_step: int = 0,
    balance: float | None = None,
    longest_wait: float = LONGEST,
    pinned: bool = False,
) -> DataLoader[Batch]:
    """The batches of one epoch: `batch_size` images on each of `world_size` processes, in an order drawn for the epoch.

    The last, smaller batch is left out, as in the official recipe; where there is only that one, it is used. `scales`
    are sides of the input, one drawn for each step (nearest interpolation, as upstream), or how often its own stands
    among those of `spread_sides`; none after `augment.stop_epoch`. Inputs that keep the aspect are padded; scales,
    mixup and copy-blend are not for them. `first_step` goes on within an epoch. `balance`: images of rare classes come
    more than once an epoch (see `detr.data.balance`). InputError if no image has a box, and where no batch came for
    `longest_wait` seconds (0: never). `pinned`: in memory that a CUDA device copies from while the host goes on.
    """
    if not len(dataset.annotations.boxes) or dataset.annotations.crowd.all():
        raise InputError(f"none of the {len(dataset):,} training images has a box")
    views = None if balance is None else repeated(repeat_factors(dataset.annotations, balance), seed, epoch)
    steps = steps_of_epoch(
        len(dataset) if views is None else len(views),
        batch_size=batch_size, seed=seed, epoch=epoch, rank=rank, world_size=world_size,
    )  # fmt: skip
    if views is not None:
        steps = [[int(views[place]) for place in step] for step in steps]
    sides = spread_sides(input, scales) if isinstance(scales, int) else tuple(scales)
    drawn = sides if augment.draws_scales(epoch) else ()
    batches = _TrainingBatches(dataset.in_channels(input.channels), input, augment, seed, epoch, rank, drawn)
    return _Batches(batches, list(enumerate(steps))[first_step:], workers, longest_wait, pinned, "train.longest_wait")


def val_loader(
    dataset: CocoDataset,
    *,
    input: InputConfig,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    longest_wait: float = LONGEST,
    pinned: bool = False,
) -> DataLoader[Batch]:
    """Each image once, in file order, over all processes together: process `rank` takes every `world_size`-th batch.

    Batches are shared out whole, so that each is computed alike however many processes there are.
    """
    indices = list(range(len(dataset)))
    steps = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    batches = _PlainBatches(dataset.in_channels(input.channels), input)
    return _Batches(batches, list(enumerate(steps))[rank::world_size], workers, longest_wait, pinned)


def steps_of_epoch(
    count: int, *, batch_size: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """The indices of each step of this process. The images of a step are the same for any split over processes."""
    order = np.random.default_rng([_ORDER, seed, epoch]).permutation(count)
    whole = batch_size * world_size
    if count < whole:  # one step, in which no process may be left without an image
        own = order[rank::world_size]
        return [(own if len(own) else order[rank % count :][:1]).tolist()]
    return [order[start : start + whole][rank::world_size].tolist() for start in range(0, count - whole + 1, whole)]


def input_size(input: InputConfig, scale: int) -> tuple[int, int]:
    """(height, width) of the input with `scale` as its longer side, in the input's own aspect."""
    longer = max(input.height, input.width)
    height, width = (round(scale * side / longer / STRIDE) * STRIDE for side in (input.height, input.width))
    return max(STRIDE, height), max(STRIDE, width)


class _TrainingBatches(Dataset[Batch]):
    def __init__(
        self,
        dataset: CocoDataset,
        input: InputConfig,
        augment: AugmentConfig,
        seed: int,
        epoch: int,
        rank: int,
        scales: tuple[int, ...],
    ) -> None:
        self.dataset, self.input, self.augment = dataset, input, augment
        self.seed, self.epoch, self.rank, self.scales = seed, epoch, rank, scales
        self.mixup = augment.mixup if augment.is_dense(epoch) else None
        self.copy_blend = augment.copy_blend if augment.blends_copies(epoch) else None
        self.mosaic = augment.mosaic if augment.is_dense(epoch) else None
        self.sizes = augment.sizes if augment.is_strong(epoch) else None

    def __getitem__(self, step: Step) -> Batch:
        number, indices = step
        pairs = [self._prepared(index) for index in indices]
        images, padding = padded([image for image, _ in pairs])
        targets = [target for _, target in pairs]
        if self.mixup is not None or self.copy_blend is not None:
            assert padding is None
            images = normalise(images, self.input)
            with drawing_from(self.seed, self.epoch, number, _MIX, self.rank):
                images, targets = mix(images, targets, mixup=self.mixup, copy_blend=self.copy_blend)
        if self.scales:
            assert padding is None
            scale = np.random.default_rng([_SCALE, self.seed, self.epoch, number]).choice(self.scales)
            images = interpolate(images, size=input_size(self.input, int(scale)))
        return Batch(images, padding, targets)

    def _prepared(self, view: int) -> tuple[Tensor, Target]:
        """The image of a view, which is its index, and for its n-th repetition that and n times the number of images:
        draws are by view, so that an image seen twice is not seen alike."""
        sample = self._mosaic(view)
        seen = augment(
            self.dataset[view % len(self.dataset)] if sample is None else sample,
            self.augment,
            seed=self.seed,
            epoch=self.epoch,
            index=view,
            is_mosaic=sample is not None,
        )
        return to_network(seen, self._input(view), min_size=self.augment.min_size)

    def _mosaic(self, view: int) -> Sample | None:
        """The image with three others, where it is to be one of four."""
        if self.mosaic is None:
            return None
        with drawing_from(self.seed, self.epoch, view, _MOSAIC):
            if uniform(0, 1) >= self.mosaic.probability:
                return None
            indices = [view % len(self.dataset), *(whole(0, len(self.dataset) - 1) for _ in range(3))]
            side = part_side(self.mosaic, self.input)
            return mosaic([self.dataset.reduced(each, side) for each in indices], self.mosaic, self.input)

    def _input(self, view: int) -> InputConfig:
        if self.sizes is None:
            return self.input
        with drawing_from(self.seed, self.epoch, view, _SIZE):
            return drawn_input(self.input, self.sizes)


class _PlainBatches(Dataset[Batch]):
    def __init__(self, dataset: CocoDataset, input: InputConfig) -> None:
        self.dataset, self.input = dataset, input

    def __getitem__(self, step: Step) -> Batch:
        pairs = [to_network(self.dataset[index], self.input) for index in step[1]]
        images, padding = padded([image for image, _ in pairs])
        return Batch(images, padding, [target for _, target in pairs])


class _Batches(DataLoader[Batch]):
    """A loader of whole batches. A user's mistake met by a worker arrives as itself, without the worker's traceback."""

    def __init__(
        self,
        batches: _TrainingBatches | _PlainBatches,
        steps: list[Step],
        workers: int,
        longest_wait: float,
        pinned: bool,
        setting: str = "",
    ) -> None:
        self.longest_wait, self.setting = longest_wait, setting
        self.whereabouts = Whereabouts(workers)
        self.images = batches.dataset
        super().__init__(
            _Answering(batches, self.whereabouts),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_as_is,
            pin_memory=pinned,
            worker_init_fn=_leave_signals_to_parent,
            # A loader without its own generator draws from the global one, and a resumed run would differ.
            generator=torch.Generator().manual_seed(0),
        )

    def check_worker_number_rationality(self) -> None:
        """Nothing: PyTorch would advise against many processes for each loader; the command line does so once."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        standstill = Standstill(self.images, self.whereabouts, self.longest_wait, self.setting)
        with standstill.starting():
            answers = super().__iter__()
        with standstill.watched() as patience:
            while True:
                with standstill.in_words(), patience.waiting():
                    answer = next(answers, None)
                if answer is None:
                    return
                if isinstance(answer, InputError):
                    raise answer
                yield answer


class _Answering(Dataset[Any]):
    """Answers with the InputError instead of raising it: a loader would wrap it in the text of a traceback."""

    def __init__(self, batches: _TrainingBatches | _PlainBatches, whereabouts: Whereabouts) -> None:
        self.batches, self.whereabouts = batches, whereabouts

    def __getitem__(self, step: Step) -> Batch | InputError:
        process = get_worker_info()
        number = 0 if process is None else process.id
        self.whereabouts.begin(number)
        self.batches.dataset.begins = partial(self.whereabouts.at, number)
        try:
            batch = self.batches[step]
            return batch if process is None else _handed_over(batch)
        except InputError as problem:
            return problem.with_traceback(None)
        finally:
            self.whereabouts.done(number)


def _handed_over(batch: Batch) -> Batch:
    """In shared memory. The loader's own way there is a thread, whose failure would leave the others waiting."""
    try:
        return batch.share_memory()
    except RuntimeError as problem:
        if (said := no_room_for(problem)) is None:
            raise
        raise InputError(said) from None


def _as_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and SIGTERM may reach every process of the terminal or the job; the parent alone decides, and ends its
    workers. Only a second SIGTERM, which may be the parent's, is obeyed.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # torchrun sends its signals to the whole group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
