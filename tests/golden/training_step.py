"""One training step of a network with weights by rule, as the official code was recorded: no update.

A record is a dict of plain values:

- `model` the preset, `source` the table of its official names, `changed` (sometimes) settings under their dotted names;
- `input` seed, batch, height, width, and where images have different sizes `sizes` [B] of (height, width);
- `fill` (sometimes) `scaled`: official name -> factor, `added`: ending of official names -> what is added, `named`:
  start of official names -> that of the names that their values follow from;
- `targets` labels (places in the official logits) and boxes (cxcywh), `denoising` (sometimes) with a `seed`;
- `criterion` (sometimes) settings that are not those of the arch;
- `losses` weighted, `matches` of each head [B] of (queries, targets), `union` of them, `gradients` their norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fill import filled_state, image
from numpy.typing import NDArray
from torch import Tensor, nn

from detr.config import merged, read_recipe
from detr.convert import to_ours, to_theirs
from detr.criterion import Criterion, CriterionConfig, criterion_for
from detr.criterion.matcher import match, union
from detr.criterion.truth import Truth, in_one_row
from detr.models import build_model
from detr.models.presets import model_config
from detr.records import Output, Target

Matches = list[tuple[list[int], list[int]]]


@dataclass(frozen=True, eq=False)
class Step:
    """What came of it."""

    network: Any
    source: str
    output: Output
    targets: list[Target]
    criterion: Criterion
    losses: dict[str, Tensor]

    def values(self) -> dict[str, float]:
        return {name: loss.item() for name, loss in self.losses.items()}

    def gradients(self, kind: str, *, without: tuple[str, ...] = ()) -> dict[str, float]:
        """Official name -> norm of the gradient of the `classification` or `localisation` losses, 0 where there is
        none; `without` are the starts of our names of those that are left out.
        """
        chosen = [loss for name, loss in self.losses.items() if _is_class_loss(name) == (kind == "classification")]
        weights = {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}
        weights = {name: weight for name, weight in weights.items() if not name.startswith(without)}
        found = torch.autograd.grad(sum(chosen), list(weights.values()), retain_graph=True, allow_unused=True)
        result = {}
        for (name, weight), gradient in zip(weights.items(), found, strict=True):
            [*_, official] = to_theirs({name: weight.detach()}, self.source)
            result[official] = 0.0 if gradient is None else gradient.norm().item()
        return result

    def matches(self) -> list[Matches]:
        """Of each head, in the order of the records, and image: queries and their targets."""
        truth = self._truth()
        return [_by_image(pairs, truth) for pairs in self._found(truth)]

    def union(self) -> Matches:
        """Of each image: queries and their targets."""
        truth = self._truth()
        return _by_image(union(self._found(truth)), truth)

    def _truth(self) -> Truth:
        return in_one_row(self.targets, device=torch.device("cpu"), dtype=torch.float64, slots=self.criterion.slots)

    def _found(self, truth: Truth) -> list[NDArray[np.int64]]:
        """[3, K] of each head"""
        *auxiliary, last = self.output.layers
        heads = [each for each in (last, *auxiliary, self.output.start, self.output.proposals) if each is not None]
        found = []
        for head in heads:
            one_class = head is self.output.proposals and self.criterion.one_class_proposals
            against = truth.as_one_class() if one_class else truth
            [pairs] = match([head], against, self.criterion.config.matcher)
            found.append(torch.stack((pairs.images, pairs.queries, pairs.targets)).numpy())
        return found


def _by_image(found: NDArray[np.int64], truth: Truth) -> Matches:
    """[3, K] -> of each image its queries and their targets, counted from its first."""
    images, queries, targets = found
    own = [images == place for place in range(len(truth.starts))]
    return [
        (queries[each].tolist(), (targets[each] - start).tolist())
        for each, start in zip(own, truth.starts, strict=True)
    ]


def take(record: Mapping[str, Any], *, gradients: bool = True) -> Step:
    """Forward and losses; without `gradients` none can be asked for."""
    network = _network(record)
    images, padding = _images(record["input"])
    targets = [
        Target(
            torch.tensor([network.slots.index(label) for label in each["labels"]], dtype=torch.int64),
            torch.tensor(each["boxes"], dtype=torch.float64).view(-1, 4),
        )
        for each in record["targets"]
    ]
    if "denoising" in record:
        torch.manual_seed(record["denoising"]["seed"])
    drawn_from = [Target(each.labels, each.boxes.float()) for each in targets]  # the reference draws in float32
    config = record.get("criterion")
    criterion = criterion_for(network, CriterionConfig(**config) if config else None)
    with torch.set_grad_enabled(gradients):
        output = network(images, padding, drawn_from)
        losses = criterion(output, targets)
    return Step(network, record["source"], output, targets, criterion, losses)


def _network(record: Mapping[str, Any]) -> Any:
    """In training, in float64, with the batch norms in evaluation."""
    tree = read_recipe(record["model"])["model"]
    for key, value in record.get("changed", {}).items():
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merged(tree, value)
    network = build_model(model_config(tree, record["model"])).double()
    source = record["source"]
    network.load_state_dict(to_ours(_weights(network, source, record.get("fill", {})), source))
    if "denoising" not in record and hasattr(network, "denoising"):
        network.denoising = None
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def _weights(network: nn.Module, source: str, fill: Mapping[str, Any]) -> dict[str, Tensor]:
    """Official names, no second ones, and values. A tensor of several names has the value of one of them."""
    state = {}
    for ours, tensor in network.state_dict().items():
        theirs = to_theirs({ours: tensor}, source)
        *_, name = theirs
        first = {name: tensor} if theirs[name].shape == tensor.shape else theirs  # or they keep apart what we stack
        for name, each in first.items():
            state[name] = _filled(name, tuple(each.shape), fill)
    return state


def _filled(name: str, shape: tuple[int, ...], fill: Mapping[str, Any]) -> Tensor:
    named = name
    for start, other in fill.get("named", {}).items():
        named = other + named.removeprefix(start) if named.startswith(start) else named
    [value] = filled_state({named: shape}).values()
    for ending, amount in fill.get("added", {}).items():
        value = value + amount if name.endswith(ending) else value
    return value * fill.get("scaled", {}).get(name, 1.0)


def _images(given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """[B, 3, h, w] and, where sizes differ, [B, h, w] True where there is no image."""
    images = image(given["seed"], given["batch"], given["height"], given["width"])
    if "sizes" not in given:
        return images, None
    padding = torch.ones(len(images), *images.shape[-2:], dtype=torch.bool)
    for mask, (height, width) in zip(padding, given["sizes"], strict=True):
        mask[:height, :width] = False
    return images.masked_fill(padding[:, None], 0), padding


def _is_class_loss(name: str) -> bool:
    return name.split("_")[1] in ("vfl", "mal", "ce", "focal")
