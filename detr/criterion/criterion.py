"""What training makes small: the weighted losses of every head of a network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn

from detr.criterion.heads import RTDETR_SUFFIXES, Head, Suffixes, finite, matched_heads, noised_heads, precise_enough
from detr.criterion.matcher import Pairs, cheapest, costs, match, on_device, union
from detr.criterion.terms import Assignment, BoxLosses, ClassLoss, CriterionConfig, EdgeLosses, Part
from detr.criterion.truth import Truth, faults, in_one_row, refuse
from detr.errors import InputError, UsageError, listed
from detr.records import Denoising, Output, Target

_TOO_LARGE = 1e15  # the area of a box of this size is still a float32
_CLASS_LOSSES = {"varifocal": "loss_vfl", "focal": "loss_focal", "mal": "loss_mal", "cross_entropy": "loss_ce"}


class Criterion(nn.Module):
    """`criterion(output, targets)` -> the weighted losses by their official names; training makes their sum small.

    Every decoder layer, the start boxes and the proposals are matched anew; denoising queries know their targets. A
    loss is a sum over the batch divided by the number of targets, averaged over all processes and at least 1; for
    denoising, times the number of groups; over the union of all pairs, by their number. Computed in float32 (float64
    if the network is), autocast or not. A step reads from the device once.

    A head without any target still has its losses, so all processes' graphs are alike. A loss that is zero by its
    definition is absent: the last layer is its own teacher and has no `loss_ddf`.

    InputError: targets that cannot be right. FloatingPointError: a prediction is NaN or infinite; says of which head.
    With `poisoned` all losses are NaN in place of that error: processes that train together then stay together, as
    each goes through the same backward pass.
    """

    def __init__(
        self,
        config: CriterionConfig | None = None,
        *,
        suffixes: Suffixes = RTDETR_SUFFIXES,
        class_loss: str | None = None,
        slots: Sequence[int] | None = None,
        one_class_proposals: bool = False,
        edge_scale: float = 4.0,
        edge_up: float = 0.5,
    ) -> None:
        """`suffixes` and `class_loss` (the name of that loss) name the losses as the paper's code does; `slots` says
        where in the logits each class lies, by default where its label says. `one_class_proposals`: the proposals say
        in the first slot whether there is an object. `edge_scale` and `edge_up` are those of `bin_positions`.
        """
        super().__init__()
        self.config = config = config or CriterionConfig()
        self.suffixes, self.one_class_proposals = suffixes, one_class_proposals
        self.slots = None if slots is None else torch.tensor(slots)
        self.epoch = 0  # of the training, counted from 0; the matcher may depend on it
        self.class_loss: Part = ClassLoss(config, class_loss or _CLASS_LOSSES[config.classification])
        self.box_losses: list[Part] = [BoxLosses(config)]
        self.has_edge_losses = bool(config.fgl_weight or config.ddf_weight)
        if self.has_edge_losses:
            self.box_losses.append(EdgeLosses(config, scale=edge_scale, up=edge_up))
        self._said_too_many = False

    def forward(self, output: Output, targets: Sequence[Target], *, poisoned: bool = False) -> dict[str, Tensor]:
        with torch.autocast(output.layers[-1].boxes.device.type, enabled=False):
            return self._forward(output, targets, poisoned=poisoned)

    @torch.no_grad()
    def matched(self, output: Output, targets: Sequence[Target]) -> tuple[Truth, Pairs]:
        """Which queries of the last layer answer for which targets; the predictions must be finite."""
        truth = self._truth(output, targets)
        last = self._matched_heads(output, truth)[:1]
        return truth, match(last, truth, self.config.matcher, epoch=self.epoch)[0]

    def _forward(self, output: Output, targets: Sequence[Target], *, poisoned: bool) -> dict[str, Tensor]:
        truth = self._truth(output, targets)
        matched = self._matched_heads(output, truth)
        noised = noised_heads(output, self.suffixes, truth.boxes.dtype)
        self._say_if_too_many(truth, matched)
        if self.has_edge_losses and matched[0].edges is None:
            raise UsageError(
                "fgl_weight and ddf_weight are for boxes told as distributions, which this network has not"
            )

        result: dict[str, Tensor] = {}
        pairs, together, broken = self._match(matched, noised, truth)
        if broken is not None:
            if not poisoned:
                raise broken
            matched, noised = [finite(head) for head in matched], [finite(head) for head in noised]
        for head, for_class, for_boxes in self._assigned(matched, noised, truth, output.denoising, pairs, together):
            terms = self.class_loss(head, for_class)
            for part in self.box_losses:
                terms |= part(head, for_boxes)
            result |= {name + head.suffix: value for name, value in terms.items()}
        return result if broken is None else {name: value * math.nan for name, value in result.items()}

    def _assigned(
        self,
        matched: list[Head],
        noised: list[Head],
        truth: Truth,
        denoising: Denoising | None,
        pairs: list[Pairs],
        together: list[Pairs],
    ) -> list[tuple[Head, Assignment, Assignment]]:
        """Each head with what its classes and what its boxes are held against."""
        known = _known_pairs(denoising, truth)
        every = [*pairs, *together, known]
        num_targets, *nums = means_over_processes([len(truth), *(len(each) for each in every)], truth.boxes)
        normaliser = at_least_1(num_targets)
        num_last = nums[len(pairs)] if together else nums[0]
        balance = num_last, matched[0].logits.shape[:2].numel() - num_last

        truths = [truth for heads, truth in self._held_against(matched, truth) for _ in heads]
        own = [
            Assignment(each, against, normaliser, num, balance)
            for each, against, num in zip(pairs, truths, nums[: len(pairs)], strict=True)
        ]
        union_of_all = [Assignment(each, truth, at_least_1(num_last), num_last, balance) for each in together]
        rows = list(zip(matched, own, union_of_all * len(matched) or own, strict=True))
        if denoising is not None:
            of_known = Assignment(known, truth, normaliser * denoising.num_groups, nums[-1], balance)
            rows += [(head, of_known, of_known) for head in noised]
        return rows

    def _match(
        self, matched: list[Head], noised: list[Head], truth: Truth
    ) -> tuple[list[Pairs], list[Pairs], FloatingPointError | None]:
        """The pairs of each head, their union if asked for, and what is wrong with the predictions, after a look at
        everything that could poison them: one transfer for all. Broken predictions are matched anyhow.
        """
        num_classes = matched[0].logits.shape[-1] if self.slots is None else len(self.slots)
        parts = [(head, part) for head in matched + noised for part in head.parts()]
        cost, wrong, broken = _to_host(
            torch.cat([self._costs(heads, against) for heads, against in self._held_against(matched, truth)], dim=1),
            faults(truth, num_classes),
            torch.stack([_is_broken(values).any() for head in matched + noised for values in head.parts().values()]),
        )
        if wrong.any():
            raise refuse(truth, int(wrong.argmax()), num_classes)
        problem = _broken(*parts[int(broken.argmax())], truth) if broken.any() else None
        if problem is not None:
            cost = np.nan_to_num(cost, nan=0.0, posinf=0.0, neginf=0.0)
        found = cheapest(cost, [head.boxes.shape[1] for head in matched], truth)
        pairs = on_device([*found, union(found)] if self.config.union else found, truth)
        return pairs[: len(matched)], pairs[len(matched) :], problem

    def _costs(self, heads: list[Head], truth: Truth) -> Tensor:
        return costs(heads, truth, self.config.matcher, epoch=self.epoch)

    def _held_against(self, matched: list[Head], truth: Truth) -> list[tuple[list[Head], Truth]]:
        """The matched heads, in their order, with the targets as each of them is to see them."""
        told_apart = [head for head in matched if not head.one_class]
        one_class = matched[len(told_apart) :]
        return [(told_apart, truth)] + ([(one_class, truth.as_one_class())] if one_class else [])

    def _matched_heads(self, output: Output, truth: Truth) -> list[Head]:
        return matched_heads(output, self.suffixes, truth.boxes.dtype, one_class_proposals=self.one_class_proposals)

    def _truth(self, output: Output, targets: Sequence[Target]) -> Truth:
        boxes = output.layers[-1].boxes
        if len(targets) != len(boxes):
            raise InputError(f"{len(targets)} targets for {len(boxes)} images; expected one Target for each image")
        if self.slots is not None and self.slots.device != boxes.device:
            self.slots = self.slots.to(boxes.device, non_blocking=True)
        return in_one_row(targets, device=boxes.device, dtype=precise_enough(output), slots=self.slots)

    def _say_if_too_many(self, truth: Truth, heads: list[Head]) -> None:
        num_queries = min(head.boxes.shape[1] for head in heads)
        most = max(truth.counts)
        if most > num_queries and not self._said_too_many:
            self._said_too_many = True
            image_id = truth.image_ids[truth.counts.index(most)]
            warnings.warn(
                f"image {image_id!r} has {most} targets for {num_queries} queries: {most - num_queries} find none and "
                "are not learned; more queries would help (said once)",
                stacklevel=2,
            )


def _known_pairs(denoising: Denoising | None, truth: Truth) -> Pairs:
    """The pairs of the denoising queries, which come by image; none without denoising."""
    device = truth.slots.device
    queries = [row.to(device, non_blocking=True) for row in denoising.queries] if denoising else [truth.images[:0]]
    targets = [row.to(device, non_blocking=True) for row in denoising.targets] if denoising else [truth.images[:0]]
    return Pairs(
        images=torch.cat([torch.full_like(row, image) for image, row in enumerate(queries)]),
        queries=torch.cat(queries),
        targets=torch.cat([row + start for row, start in zip(targets, truth.starts, strict=denoising is not None)]),
    )


def means_over_processes(counts: Sequence[int], like: Tensor) -> list[Tensor | float]:
    """Each count as a process has it on average. Stays on the device."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [float(count) for count in counts]
    totals = torch.stack([like.new_full((), count) for count in counts])
    torch.distributed.all_reduce(totals)
    return list((totals / torch.distributed.get_world_size()).unbind())


def at_least_1(count: Tensor | float) -> Tensor | float:
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1.0)


def _to_host(*tensors: Tensor) -> list[NDArray[np.floating]]:
    """Several tensors in one transfer, as the type of the first."""
    row = torch.cat([tensor.reshape(-1).to(tensors[0].dtype) for tensor in tensors]).cpu().numpy()
    parts = np.split(row, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _is_broken(values: Tensor) -> Tensor:
    """NaN (which compares false), infinite, or so large that an area overflows."""
    return ~(values.detach().abs() < _TOO_LARGE)


def _broken(head: Head, part: str, truth: Truth) -> FloatingPointError:
    images = _is_broken(head.parts()[part]).flatten(1).any(1).nonzero().flatten().tolist()
    names = listed([repr(truth.image_ids[image]) for image in images])
    return FloatingPointError(
        f"the {part} of {head.words} are not finite (NaN, infinite or huge) for image {names}: the weights are broken, "
        "or the last step was too large; a lower learning rate or full precision may help"
    )
