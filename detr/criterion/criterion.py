"""What training makes small: the weighted losses of every head of a network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from detr.boxes import cxcywh_to_xyxy, iou
from detr.config import Config
from detr.criterion import losses
from detr.criterion.matcher import MatcherConfig, Pairs, assign, costs
from detr.criterion.truth import Truth, faults, in_one_row, refuse
from detr.errors import InputError, listed
from detr.records import Denoising, Output, Predictions, Target

_TOO_LARGE = 1e15  # the area of a box of this size is still a float32


class CriterionConfig(Config):
    """Losses and their weights; by default those of RT-DETR (Zhao et al. 2024, DETRs Beat YOLOs, section 4.3)."""

    classification: Literal["varifocal", "focal"] = "varifocal"
    class_weight: NonNegativeFloat = 1.0
    l1_weight: NonNegativeFloat = 5.0
    giou_weight: NonNegativeFloat = 2.0
    alpha: NonNegativeFloat = 0.75  # of the class loss
    gamma: NonNegativeFloat = 2.0
    matcher: MatcherConfig = MatcherConfig()


class Criterion(nn.Module):
    """`criterion(output, targets)` -> the weighted losses by their official names; training makes their sum small.

    Every decoder layer and the proposals are matched anew; denoising queries know their targets. A loss is a sum over
    the batch divided by the number of targets, averaged over all processes and at least 1; for denoising, times the
    number of groups. Computed in float32 (float64 if the network is), autocast or not. A step reads from the device
    once.

    A head without any target still has its losses, so all processes' graphs are alike.

    InputError: targets that cannot be right. FloatingPointError: a prediction is NaN or infinite; says of which head.
    """

    def __init__(self, config: CriterionConfig | None = None, *, proposals: Literal["aux", "enc_0"] = "enc_0") -> None:
        """`proposals` names the encoder's losses: `enc_0`, or `aux` to count on after the auxiliary decoder layers."""
        super().__init__()
        self.config = config or CriterionConfig()
        self.proposals = proposals
        self._said_too_many = False

    def forward(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        with torch.autocast(output.layers[-1].boxes.device.type, enabled=False):
            return self._forward(output, targets)

    def _forward(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        dtype = _precise_enough(output)
        matched = [head.to(dtype) for head in self._matched_heads(output)]
        noised = [head.to(dtype) for head in _noised_heads(output)]
        truth = _truth(output, targets, dtype)
        self._say_if_too_many(truth, matched)

        pairs = self._match(matched, noised, truth)
        normaliser = _mean_over_processes(len(truth), truth.boxes)
        result: dict[str, Tensor] = {}
        for head, found in zip(matched, pairs, strict=True):
            result |= self._losses(head, found, truth, normaliser)
        if output.denoising is not None:
            known = _known_pairs(output.denoising, truth)
            for head in noised:
                result |= self._losses(head, known, truth, normaliser * output.denoising.num_groups)
        return result

    def _matched_heads(self, output: Output) -> list[_Head]:
        *auxiliary, last = output.layers
        heads = [_Head(last.logits, last.boxes, "", "the last decoder layer")]
        for i, layer in enumerate(auxiliary):
            heads.append(_Head(layer.logits, layer.boxes, f"_aux_{i}", f"decoder layer {i}"))
        if output.proposals is not None:
            suffix = f"_aux_{len(auxiliary)}" if self.proposals == "aux" else "_enc_0"
            heads.append(_Head(output.proposals.logits, output.proposals.boxes, suffix, "the encoder's proposals"))
        return heads

    def _match(self, matched: list[_Head], noised: list[_Head], truth: Truth) -> list[Pairs]:
        """The pairs of each head, after a look at everything that could poison them: one transfer for both."""
        num_classes = matched[0].logits.shape[-1]
        parts = [(head, part) for head in matched + noised for part in ("logits", "boxes")]
        cost, wrong, broken = _to_host(
            costs(matched, truth, self.config.matcher),
            faults(truth, num_classes),
            torch.stack([_is_broken(getattr(head, part)).any() for head, part in parts]),
        )
        if wrong.any():
            raise refuse(truth, int(wrong.argmax()), num_classes)
        if broken.any():
            raise _broken(*parts[int(broken.argmax())], truth)
        return assign(cost, [head.boxes.shape[1] for head in matched], truth)

    def _losses(self, head: _Head, pairs: Pairs, truth: Truth, normaliser: Tensor | float) -> dict[str, Tensor]:
        boxes, wanted = head.boxes[pairs.images, pairs.queries], truth.boxes[pairs.targets]
        name, classification = self._classification(head, pairs, truth, boxes, wanted)
        weighted = {
            name: self.config.class_weight * classification.sum(),
            "loss_bbox": self.config.l1_weight * losses.l1(boxes, wanted).sum(),
            "loss_giou": self.config.giou_weight * losses.giou(boxes, wanted).sum(),
        }
        return {key + head.suffix: value / normaliser for key, value in weighted.items()}

    def _classification(
        self, head: _Head, pairs: Pairs, truth: Truth, boxes: Tensor, wanted: Tensor
    ) -> tuple[str, Tensor]:
        """Official name and value [B, Q, C] of the class loss; boxes and wanted are the matched [K, 4]."""
        place = (pairs.images, pairs.queries, truth.labels[pairs.targets])
        positive = torch.zeros_like(head.logits, dtype=torch.bool)
        positive[place] = True
        if self.config.classification == "focal":
            return "loss_focal", losses.focal(head.logits, positive, alpha=self.config.alpha, gamma=self.config.gamma)
        quality = torch.zeros_like(head.logits)
        quality[place] = iou(cxcywh_to_xyxy(boxes.detach()), cxcywh_to_xyxy(wanted))[0]
        return "loss_vfl", losses.varifocal(
            head.logits, positive, quality, alpha=self.config.alpha, gamma=self.config.gamma
        )

    def _say_if_too_many(self, truth: Truth, heads: list[_Head]) -> None:
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


@dataclass(frozen=True, eq=False)
class _Head(Predictions):
    """Predictions with the suffix of their losses and a name for people."""

    suffix: str
    words: str

    def to(self, dtype: torch.dtype) -> _Head:
        return replace(self, logits=self.logits.to(dtype), boxes=self.boxes.to(dtype))


def _noised_heads(output: Output) -> list[_Head]:
    layers = output.denoising.layers if output.denoising else ()
    return [
        _Head(layer.logits, layer.boxes, f"_dn_{i}", f"denoising decoder layer {i}") for i, layer in enumerate(layers)
    ]


def _precise_enough(output: Output) -> torch.dtype:
    """float32, or better where the network is better."""
    last = output.layers[-1]
    return torch.promote_types(torch.promote_types(last.logits.dtype, last.boxes.dtype), torch.float32)


def _truth(output: Output, targets: Sequence[Target], dtype: torch.dtype) -> Truth:
    boxes = output.layers[-1].boxes
    if len(targets) != len(boxes):
        raise InputError(f"{len(targets)} targets for {len(boxes)} images; expected one Target for each image")
    return in_one_row(targets, device=boxes.device, dtype=dtype)


def _known_pairs(denoising: Denoising, truth: Truth) -> Pairs:
    """The pairs of the denoising queries, which come by image."""
    device = truth.labels.device
    queries = [row.to(device, non_blocking=True) for row in denoising.queries]
    targets = [row.to(device, non_blocking=True) for row in denoising.targets]
    return Pairs(
        images=torch.cat([torch.full_like(row, image) for image, row in enumerate(queries)]),
        queries=torch.cat(queries),
        targets=torch.cat([row + start for row, start in zip(targets, truth.starts, strict=True)]),
    )


def _mean_over_processes(count: int, like: Tensor) -> Tensor | float:
    """The number of targets a process has on average, at least 1. Stays on the device."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return max(float(count), 1.0)
    total = like.new_full((), count)
    torch.distributed.all_reduce(total)
    return (total / torch.distributed.get_world_size()).clamp(min=1)


def _to_host(*tensors: Tensor) -> list[NDArray[np.floating]]:
    """Several tensors in one transfer, as the type of the first."""
    row = torch.cat([tensor.reshape(-1).to(tensors[0].dtype) for tensor in tensors]).cpu().numpy()
    parts = np.split(row, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _is_broken(values: Tensor) -> Tensor:
    """NaN (which compares false), infinite, or so large that an area overflows."""
    return ~(values.detach().abs() < _TOO_LARGE)


def _broken(head: _Head, part: str, truth: Truth) -> FloatingPointError:
    images = _is_broken(getattr(head, part)).flatten(1).any(1).nonzero().flatten().tolist()
    names = listed([repr(truth.image_ids[image]) for image in images])
    return FloatingPointError(
        f"the {part} of {head.words} are not finite (NaN, infinite or huge) for image {names}: the weights are broken, "
        "or the last step was too large; a lower learning rate or full precision may help"
    )
