"""A step whose numbers were not finite: kept with its network and batch, and taken again to see where it began."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detr import weights
from detr.config import validated
from detr.criterion import Criterion, criterion_for
from detr.errors import InputError
from detr.image import as_input
from detr.models import build_model
from detr.models.network import DetectionNetwork
from detr.records import Batch, Output, Target
from detr.training.learning.lora import add_adapters
from detr.training.learning.sharding import all_whole, first_not_finite
from detr.training.recipe import Recipe
from detr.training.run import Run, precision_of
from detr.training.saved.checkpoint import load_same
from detr.training.step import seed_of_step

FILE = "diverged.safetensors"


@dataclass(frozen=True)
class Cause:
    """Where the first number came up that is not finite."""

    where: str  # a parameter, a module, a loss; in words
    images: tuple[int | str, ...] = ()  # ids of those it was in, where that can be told

    def __str__(self) -> str:
        ids = ", ".join(str(each) for each in self.images[:3])
        more = f" and {len(self.images) - 3} more" if len(self.images) > 3 else ""
        return f"{self.where}{f', of image {ids}{more}' if self.images else ''}"


@dataclass(frozen=True)
class Replayed:
    """A kept step taken again."""

    step: int
    images: tuple[int | str, ...]
    cause: Cause | None  # None: all is finite this time
    taken: int  # steps that the network had taken when it was kept

    @property
    def text(self) -> str:
        ids = ", ".join(str(each) for each in self.images)
        since = self.taken - self.step
        later = f" (with the network of {since} steps later)" if since > 0 else ""
        start = f"step {self.step}, images {ids}{later}: "
        if self.cause is None:
            return f"{start}all numbers are finite here; it takes the device or precision of the run to see it again"
        return f"{start}not finite first in {self.cause}"


def keep(run: Run, pieces: Sequence[Batch], step: int) -> Path:
    """Write the batch of a step that was not taken, and the network, in place of what was kept before.

    The network is that of now: as the step had it, unless other steps were taken since.
    """
    tensors = {f"network.{name}": value for name, value in all_whole(run.network.state_dict()).items()}
    for place, piece in enumerate(pieces):
        tensors |= {f"{place}.images": piece.images}
        if piece.padding is not None:
            tensors |= {f"{place}.padding": piece.padding}
        for number, target in enumerate(piece.targets):
            tensors |= {f"{place}.labels.{number}": target.labels, f"{place}.boxes.{number}": target.boxes}
    path = run.out / (FILE if run.team.leads else f"diverged-{run.team.rank}.safetensors")
    weights.write(
        path,
        tensors,
        model=run.recipe.as_tree()["model"],
        classes=run.network.classes,
        metadata={
            "replay": {
                "step": step,
                "taken": run.counters.step,
                "epoch": run.counters.epoch,
                "seed": seed_of_step(run.recipe.train.seed, step - 1, run.team.rank),
                "images": [[target.image_id for target in piece.targets] for piece in pieces],
                "sizes": [[list(target.size) for target in piece.targets] for piece in pieces],
            },
            "recipe": run.recipe.as_tree(),
        },
    )
    return path


def cause_of_step(run: Run, pieces: Sequence[Batch], step: int) -> Cause | None:
    """Where in a step of this process the first number was not finite. All processes of the team at once.

    Several processes look as far as the forward passes: not all may go on from there, and they can only do it together.
    """
    seed = seed_of_step(run.recipe.train.seed, step - 1, run.team.rank)
    dtype = precision_of(run.recipe.train.amp, run.team.device)
    if run.team.size == 1:
        return cause_of(run.network, pieces, run.criterion, dtype=dtype, seed=seed)

    def anywhere(found: Cause | None) -> bool:
        return bool(run.team.largest(found is not None))

    return cause_of(run.network, pieces, None, dtype=dtype, seed=seed, is_enough=anywhere)


def replay(path: Path, *, device: torch.device) -> Replayed:
    """Take the step in a file of `keep` again, forward and backward; InputError if it is damaged or something else."""
    checkpoint = weights.read(path)
    about = checkpoint.metadata.get("replay")
    if about is None:
        raise InputError(f"{path} holds no step to replay; a training that diverges leaves {FILE} in its folder")
    recipe = validated(Recipe, checkpoint.metadata["recipe"], str(path))
    assert checkpoint.classes is not None
    network = build_model(recipe.model, classes=checkpoint.classes)
    if recipe.train.lora is not None:
        add_adapters(network, recipe.train.lora)
    start = "network."
    load_same(network, {k[len(start) :]: v for k, v in checkpoint.state.items() if k.startswith(start)}, str(path))
    pieces = [_piece(checkpoint.state, about, place) for place in range(len(about["images"]))]
    criterion = criterion_for(network, recipe.criterion)
    criterion.epoch = about["epoch"]
    cause = cause_of(
        network.to(device).train(),
        [piece.to(device) for piece in pieces],
        criterion.to(device),
        dtype=precision_of(recipe.train.amp, device),
        seed=about["seed"],
    )
    images = tuple(id for ids in about["images"] for id in ids)
    return Replayed(about["step"], images, cause, about.get("taken", about["step"]))


def _is_known(found: Cause | None) -> bool:
    return found is not None


def cause_of(
    network: DetectionNetwork,
    pieces: Sequence[Batch],
    criterion: Criterion | None,
    *,
    dtype: torch.dtype | None,
    seed: int,
    is_enough: Callable[[Cause | None], bool] = _is_known,
) -> Cause | None:
    """The first of parameters, images, modules, losses and gradients that is not finite, in the order of a step.

    Forward and, with a criterion, backward are computed, in mixed precision with `dtype`, and gradients and averages
    of norms are left. `is_enough` says, before and after each forward pass, whether what was found ends the search.
    """
    damaged = first_not_finite(network)
    found = None if damaged is None else Cause(f"the parameter {damaged}")
    if is_enough(found):
        return found
    torch.manual_seed(seed)
    device = next(network.parameters()).device
    for piece in pieces:
        images = as_input(piece.images, piece.padding, network.config.input)
        bad = _rows(images, piece)
        with _listening(network, piece) as heard, torch.autocast(device.type, dtype) if dtype else nullcontext():
            output = network(images, piece.padding, piece.targets)
        found = Cause("the input", bad) if bad else heard[0] if heard else None
        if is_enough(found):
            return found
        if criterion is not None and (found := _cause_in_losses(criterion, output, piece)):
            return found
    for name, value in reversed(list(network.named_parameters())):  # the backward pass begins at the end
        if value.grad is not None and not value.grad.isfinite().all():
            return Cause(f"the gradient of {name}")
    return None


def _cause_in_losses(criterion: Criterion, output: Output, piece: Batch) -> Cause | None:
    try:
        losses = criterion(output, piece.targets)
    except FloatingPointError as problem:
        return Cause(str(problem))
    for name, value in losses.items():
        if not value.isfinite():
            return Cause(f"the loss {name}")
    sum(losses.values(), output.layers[-1].boxes.new_zeros(())).backward()
    return None


@contextmanager
def _listening(network: nn.Module, piece: Batch) -> Iterator[list[Cause]]:
    """Modules in the order in which they finish whose answers are not finite: parts before what they are parts of."""
    heard: list[Cause] = []

    def listen(name: str) -> Any:
        def hook(module: nn.Module, given: Any, answer: Any) -> None:
            if not heard:
                for tensor in _tensors(answer):
                    if not tensor.isfinite().all():
                        heard.append(Cause(name or type(module).__name__, _rows(tensor, piece)))
                        return

        return hook

    hooks = [module.register_forward_hook(listen(name)) for name, module in network.named_modules()]
    try:
        yield heard
    finally:
        for each in hooks:
            each.remove()


def _tensors(answer: Any) -> Iterator[Tensor]:
    """Of floating point in what a module gives; records and the anchors' meant infinities are their makers' matter."""
    if isinstance(answer, Tensor):
        if answer.is_floating_point():
            yield answer
    elif isinstance(answer, (tuple, list)):
        for each in answer:
            yield from _tensors(each)


def _rows(values: Tensor, piece: Batch) -> tuple[int | str, ...]:
    """Ids of the images whose part of `values` is not finite; none where the first axis is not that of images."""
    if values.dim() == 0 or len(values) != len(piece.targets):
        return ()
    bad = (~values.isfinite()).flatten(1).any(1).tolist() if values.dim() > 1 else (~values.isfinite()).tolist()
    return tuple(target.image_id for target, is_bad in zip(piece.targets, bad, strict=True) if is_bad)


def _piece(state: dict[str, Tensor], about: dict[str, Any], place: int) -> Batch:
    targets = [
        Target(state[f"{place}.labels.{number}"], state[f"{place}.boxes.{number}"], id, (size[0], size[1]))
        for number, (id, size) in enumerate(zip(about["images"][place], about["sizes"][place], strict=True))
    ]
    return Batch(state[f"{place}.images"], state.get(f"{place}.padding"), targets)
