"""What a training run leaves behind: weights to use (`best`, `last`), and the state to go on from (`resume`).

All are our safetensors: written aside and renamed, every tensor with its SHA-256, read without running anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from detr import __version__, weights
from detr.classes import Classes
from detr.errors import InputError, listed
from detr.models.network import DetectionNetwork
from detr.training.learning.average import Average
from detr.training.learning.sharding import load, shared_out_like
from detr.training.recipe import Recipe

BEST, LAST, RESUME = "best.safetensors", "last.safetensors", "resume.safetensors"
RECIPE, DATA = "recipe.yaml", "data.txt"


@dataclass
class Counters:
    """How far a training has come."""

    epoch: int = 0  # finished epochs
    step: int = 0  # optimizer steps
    step_in_epoch: int = 0  # optimizer steps of the epoch under way
    best: float | None = None  # AP
    best_epoch: int = 0
    evaluations_without_better: int = 0
    best_of_stage: float | None = None  # AP since the second stage began, or began anew
    decay: float | None = None  # of the average, where it is no longer the recipe's


@dataclass(frozen=True, eq=False)
class Resumed:
    """A read `resume.safetensors`."""

    path: Path
    tensors: dict[str, Tensor]
    classes: Classes
    counters: Counters
    recipe: dict[str, Any]
    extras: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name.`, without that prefix."""
        return {
            key.removeprefix(f"{name}."): value for key, value in self.tensors.items() if key.startswith(f"{name}.")
        }


def save_weights(
    path: Path, network: DetectionNetwork, recipe: Recipe, *, epoch: int, metrics: Mapping[str, float]
) -> None:
    """A file for `predict`, `val` and `--weights`: it says which model and classes it holds and where it comes from."""
    weights.write(
        path,
        network.state_dict(),
        model=recipe.as_tree()["model"],
        classes=network.classes,
        metadata={
            "recipe": recipe.as_tree(),
            "epoch": epoch,
            "metrics": dict(metrics),
            "made_with": f"detr {__version__}",
        },
    )


def save_resume(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    classes: Classes,
    average_updates: int,
    scaler: torch.amp.GradScaler,
    counters: Counters,
    recipe: Recipe,
    sums: Mapping[str, tuple[float, int]],
    skipped: tuple[int, int],
    circumstances: Mapping[str, Any],
) -> None:
    """All that the next step depends on. `tensors` are those of `state_tensors`, whole.

    `sums` are those of the losses of the epoch under way (`Watch.sums`), `skipped` how many steps were left out, in all
    and in a row, `circumstances` what the run depends on besides. There is no generator among it: a step's draws
    follow from seed, step and rank.
    """
    weights.write(
        path,
        tensors,
        model=recipe.as_tree()["model"],
        classes=classes,
        metadata={
            "resume": asdict(counters),
            "recipe": recipe.as_tree(),
            "average_updates": average_updates,
            "scaler": scaler.state_dict(),
            "sums": [[name, total, count] for name, (total, count) in sums.items()],  # the order counts in adding up
            "skipped": list(skipped),
            "circumstances": dict(circumstances),
        },
    )


def state_tensors(
    network: DetectionNetwork,
    average: Average[DetectionNetwork] | None,
    optimizer: torch.optim.Optimizer,
    names: list[str],
) -> dict[str, Tensor]:
    """All tensors of a training, as they are: `network.…`, `average.…` and `optimizer.exp_avg.…`.

    `names` are those of the optimizer's parameters, in its order.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.network.state_dict().items()}
    for place, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{kind}.{names[place]}": value for kind, value in values.items()}
    return tensors


def read_state(path: Path) -> Resumed:
    """A file that `save_resume` wrote; InputError if it is damaged or something else."""
    checkpoint = weights.read(path)
    about = checkpoint.metadata
    if "resume" not in about:
        raise InputError(f"{path} holds weights but not the state of a training")
    assert checkpoint.classes is not None
    return Resumed(path, checkpoint.state, checkpoint.classes, Counters(**about["resume"]), about["recipe"], about)


def restore(
    resumed: Resumed,
    *,
    network: DetectionNetwork,
    average: Average[DetectionNetwork] | None,
    optimizer: torch.optim.Optimizer,
    names: list[str],
    scaler: torch.amp.GradScaler,
) -> None:
    """Put everything back; InputError with the first differences if the state is another network's."""
    _require_same_classes(network.classes, resumed)
    load_same(network, resumed.part("network"), str(resumed.path))
    if average is not None:
        average.load(resumed.part("average") or resumed.part("network"), resumed.extras["average_updates"])
    _restore_optimizer(optimizer, names, resumed)
    if resumed.extras["scaler"]:
        scaler.load_state_dict(resumed.extras["scaler"])


def _require_same_classes(classes: Classes, resumed: Resumed) -> None:
    if classes == resumed.classes:
        return
    gone = [repr(name) for name in resumed.classes.names if name not in classes.names]
    new = [repr(name) for name in classes.names if name not in resumed.classes.names]
    lacks = [f"the data has no {listed(gone, 3)} any more"] if gone else []
    has = [f"{listed(new, 3)} {'is' if len(new) == 1 else 'are'} new"] if new else []
    what = ", and ".join(lacks + has) or "their order or their ids are others now"
    raise InputError(
        f"{resumed.path} was trained on other classes: {what}; a run keeps its classes: begin another one with "
        f"--weights {resumed.path.with_name(BEST)} --finetune, which keeps what it knows of those of the same name"
    )


def load_same(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state that must fit in every name and shape; InputError names the first three that don't."""
    ours = network.state_dict()
    wrong = [f"{name} is missing there" for name in ours if name not in state]
    wrong += [f"{name} is not in this model" for name in state if name not in ours]
    wrong += [
        f"{name} is {list(state[name].shape)} there and {list(value.shape)} here"
        for name, value in ours.items()
        if name in state and state[name].shape != value.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise InputError(f"{source} is of another model: {'; '.join(wrong[:3])}{more}")
    load(network, state)


def _restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], resumed: Resumed) -> None:
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in resumed.part("optimizer").items():
        kind, name = key.split(".", 1)
        state.setdefault(name, {})[kind] = value
    if unknown := sorted(set(state) - set(names)):
        raise InputError(f"{resumed.path} has optimizer state of {unknown[0]}, which does not learn in this recipe")
    plain = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    plain["state"] = {
        place: {kind: _laid_out_like(parameter, value) for kind, value in state[name].items()}
        for place, (name, parameter) in enumerate(zip(names, parameters, strict=True))
        if name in state
    }
    optimizer.load_state_dict(plain)


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """As a step would have made it: where layouts differ (channels last), sums are rounded in another order."""
    if value.shape != parameter.shape:
        return value  # the number of steps
    if isinstance(parameter, DTensor):
        return shared_out_like(parameter, value)
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
