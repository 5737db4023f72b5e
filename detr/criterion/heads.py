"""Whatever in an output has losses of its own, in one list, each with the official name of its losses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detr.records import Edges, Output, Predictions


@dataclass(frozen=True)
class Suffixes:
    """What stands behind the names of the losses of each head, as the code of its paper has it; {} is a number."""

    auxiliary: str = "_aux_{}"  # decoder layers but the last
    start: str = "_pre"
    proposals: str = "_enc_0"  # {} goes on counting after the auxiliary layers
    denoising: str = "_dn_{}"
    last_denoising: str = "_dn_{}"
    denoising_start: str = "_dn_pre"


RTDETR_SUFFIXES = Suffixes()


@dataclass(frozen=True, eq=False)
class Head(Predictions):
    """Predictions that have losses."""

    suffix: str = ""
    words: str = ""  # for people
    teacher: Predictions | None = None  # whose edges this head's are to be like
    one_class: bool = False  # says in the first slot whether there is an object, of whatever class

    def parts(self) -> dict[str, Tensor]:
        """Everything a loss is made from, by its name for people."""
        return {"logits": self.logits, "boxes": self.boxes} | ({"edges": self.edges.logits} if self.edges else {})


def matched_heads(
    output: Output, suffixes: Suffixes, dtype: torch.dtype, *, one_class_proposals: bool = False
) -> list[Head]:
    """The heads whose queries look for their targets: the last layer first, the proposals last. Numbers in `dtype`."""
    *auxiliary, last = (_precise(layer, dtype) for layer in output.layers)
    heads = [Head(*last, "", "the last decoder layer")]
    for i, layer in enumerate(auxiliary):
        heads.append(Head(*layer, suffixes.auxiliary.format(i), f"decoder layer {i}", Predictions(*last)))
    if output.start is not None:
        heads.append(Head(*_precise(output.start, dtype), suffixes.start, "the start boxes"))
    if output.proposals is not None:
        suffix = suffixes.proposals.format(len(auxiliary))
        proposals = _precise(output.proposals, dtype)
        heads.append(Head(*proposals, suffix, "the encoder's proposals", one_class=one_class_proposals))
    return heads


def noised_heads(output: Output, suffixes: Suffixes, dtype: torch.dtype) -> list[Head]:
    """The heads whose queries know their targets. Numbers in `dtype`."""
    if output.denoising is None:
        return []
    *auxiliary, last = (_precise(layer, dtype) for layer in output.denoising.layers)
    count = len(auxiliary)
    heads = []
    for i, layer in enumerate(auxiliary):
        heads.append(Head(*layer, suffixes.denoising.format(i), f"denoising decoder layer {i}", Predictions(*last)))
    heads.append(Head(*last, suffixes.last_denoising.format(count), f"denoising decoder layer {count}"))
    if output.denoising.start is not None:
        start = _precise(output.denoising.start, dtype)
        heads.append(Head(*start, suffixes.denoising_start, "the denoising start boxes"))
    return heads


def finite(head: Head) -> Head:
    """The same with zeros wherever a number is not finite."""
    teacher = None if head.teacher is None else Predictions(*_without_holes(head.teacher))
    logits, boxes, edges = _without_holes(head)
    return replace(head, logits=logits, boxes=boxes, edges=edges, teacher=teacher)


def precise_enough(output: Output) -> torch.dtype:
    """float32, or better where the network is better."""
    last = output.layers[-1]
    return torch.promote_types(torch.promote_types(last.logits.dtype, last.boxes.dtype), torch.float32)


def _precise(predictions: Predictions, dtype: torch.dtype) -> tuple[Tensor, Tensor, Edges | None]:
    edges = predictions.edges
    if edges is not None:
        edges = Edges(edges.logits.to(dtype), edges.start.to(dtype))
    return predictions.logits.to(dtype), predictions.boxes.to(dtype), edges


def _without_holes(predictions: Predictions) -> tuple[Tensor, Tensor, Edges | None]:
    edges = predictions.edges
    if edges is not None:
        edges = Edges(_zeroed(edges.logits), _zeroed(edges.start))
    return _zeroed(predictions.logits), _zeroed(predictions.boxes), edges


def _zeroed(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
