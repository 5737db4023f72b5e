"""What every network of the family is to the rest of the house."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from detr.classes import Classes
from detr.errors import UsageError
from detr.layers.deformable import DeformableAttention
from detr.models.postprocess import Scoring
from detr.records import Output, Target

_MOST_SLOTS = 10_000
Slots = Literal["index", "id"]
Same = TypeVar("Same", bound="DetectionNetwork")


class DetectionNetwork(nn.Module):
    """`network(images)` -> `Output`; in training all decoder layers, in evaluation the one that answers.

    The class heads have a row for each slot. Where `config.slots` is "index", the classes are numbered as users see
    them; where it is "id", by their original category ids, as in the official DETR, Deformable DETR and DINO, with
    rows that belong to no class in the gaps.
    """

    backbone: nn.Module
    decoder: Any  # with `layers`, and `eval_layers` of them run in evaluation
    fewest_layers = 1  # that can be run; more where the heads of the first layers are gone

    def __init__(self, config: Any, classes: Classes) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.slots = slots_of(classes, config.slots)
        self.num_slots = max(self.slots, default=-1) + 1

    @abstractmethod
    def forward(self, images: Tensor, padding: Tensor | None = None, targets: list[Target] | None = None) -> Output:
        """images [B, C, h, w] as `config.input` says, of any size; padding [B, h, w] True where there is no image.

        `targets` feed only the denoising, in training.
        """

    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """Whatever says classes and boxes, and the denoising's classes."""

    @abstractmethod
    def by_class(self) -> list[nn.Module]:
        """The modules whose parameters have a row for each slot, first of all."""

    def by_object(self) -> list[nn.Module]:
        """Those of `by_class` whose first row says, of whatever class, whether there is an object."""
        return []

    def projecting(self) -> list[nn.Module]:
        """The modules that bring the backbone's maps, and the memory, to the width of the transformer."""
        return []

    def fresh(self) -> list[nn.Module]:
        """The modules of the backbone that no pretraining has seen, if it has such: they learn as fast as the rest."""
        find = getattr(self.backbone, "fresh", None)
        return [] if find is None else find()

    def looking(self) -> list[nn.Module]:
        """The modules that say where deformable attention looks."""
        return [module.offsets for module in self.modules() if isinstance(module, DeformableAttention)]

    @property
    def scoring(self) -> Scoring:
        return Scoring(None if self.config.slots == "index" else self.slots)

    def set_queries(self, num_queries: int) -> None:
        """How many queries run from now on, after training too: fewer are faster, more find more in crowds."""
        if num_queries < 1:
            raise UsageError(f"{num_queries} queries: expected at least 1")
        self.config = self.config.model_copy(update={"num_queries": num_queries})

    def set_layers(self, num_layers: int) -> None:
        """How many decoder layers run in evaluation from now on: fewer are faster and a little less exact."""
        fewest, most = self.fewest_layers, len(self.decoder.layers)
        if not fewest <= num_layers <= most:
            expected = f"{fewest} to {most}" if fewest < most else f"{most}, the only number left of this network"
            raise UsageError(f"{num_layers} decoder layers: expected {expected}")
        decoder = self.config.decoder.model_copy(update={"eval_layers": num_layers})
        self.config = self.config.model_copy(update={"decoder": decoder})
        self.decoder.eval_layers = num_layers

    def deploy(self: Same) -> Same:
        """A copy for inference only: folded, then arranged such that the same takes fewer multiplications."""
        network = self.folded()
        _each(network, "rearrange")
        return network.requires_grad_(False)

    def folded(self: Same) -> Same:
        """A copy for inference only: norms and parallel convolutions folded, what only training needs left out."""
        network = copy.deepcopy(self).eval()
        network.cut()
        _each(network, "fuse")
        return network.requires_grad_(False)

    def cut(self) -> None:
        """Forget what evaluation doesn't run; for the copy that `deploy` makes."""


def _each(network: nn.Module, name: str) -> None:
    """Call the method of this name of every module that has it."""
    for module in list(network.modules()):
        method = getattr(module, name, None)
        if callable(method):
            method()


def slots_of(classes: Classes, by: Slots) -> tuple[int, ...]:
    """Which row of the class heads belongs to each class; UsageError where ids can't number rows."""
    if by == "index":
        return tuple(range(len(classes)))
    for id in classes.ids:
        if not isinstance(id, int) or not 0 <= id < _MOST_SLOTS:
            raise UsageError(
                f"category id {id!r} can't number a row of the class heads (0 to {_MOST_SLOTS - 1}); "
                "number them by index with model.slots=index"
            )
    return tuple(id for id in classes.ids if isinstance(id, int))


def num_slots(classes: Classes, by: Slots) -> int | None:
    """How many rows the class heads have; None where ids can't number rows."""
    try:
        return max(slots_of(classes, by), default=-1) + 1
    except UsageError:
        return None
