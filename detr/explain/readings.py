"""What every layer of a decoder says, and how sure it is of each side of a box."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from detr.explain.recording import Recording
from detr.explain.records import Sides
from detr.layers.edges import bin_positions
from detr.layers.position import precise
from detr.models.fine_grained_decoder import FineGrainedDecoder
from detr.models.network import DetectionNetwork
from detr.records import Edges, Predictions


def said_by_layers(recorded: Recording, network: DetectionNetwork) -> tuple[Predictions, ...]:
    """What each layer of the recorded pass would answer if it were the last; the last alone where weights lack heads.

    The decoder itself is asked again, with what it was given, as in training, when all of its layers are read. What is
    in it stays as in evaluation: nothing is dropped out.
    """
    assert recorded.output is not None
    if network.fewest_layers > 1:
        return recorded.output.layers
    device, dtype, enabled = recorded.autocast
    with _all_layers_read(network.decoder), torch.autocast(device, dtype, enabled=enabled):
        answer = network.decoder(*recorded.decoder_inputs)
    layers = answer if isinstance(answer[0], Predictions) else answer[0]
    return layers[: len(recorded.looks)]


@contextmanager
def _all_layers_read(decoder: nn.Module) -> Iterator[None]:
    before, decoder.training = decoder.training, True
    try:
        yield
    finally:
        decoder.training = before


def sides_of(edges: list[Edges], decoder: FineGrainedDecoder, place: tuple[int, int], size: tuple[int, int]) -> Sides:
    """Of the query `place` (image of the batch, query), one for each layer, in pixels of a picture (height, width)."""
    probabilities = precise(torch.stack([each.logits[place] for each in edges])).softmax(-1)  # [layers, 4, R]
    start = precise(torch.stack([each.start[place] for each in edges]))
    bins = bin_positions(decoder.bins, scale=decoder.scale, up=decoder.up, dtype=start.dtype, device=start.device)
    positions = _positions(start, bins / decoder.scale) * start.new_tensor([size[1], size[0]] * 2)[:, None]
    expected = (probabilities * positions).sum(-1)
    variance = (probabilities * (positions - expected[..., None]).square()).sum(-1)
    interval = interval_of(probabilities, positions)
    return Sides(*(each.cpu().numpy() for each in (probabilities, positions, expected, variance.sqrt(), interval)))


def interval_of(probabilities: Tensor, positions: Tensor) -> Tensor:
    """Distributions over positions, both [..., R] -> [..., 2], the positions that its middle 80 % ends at."""
    positions, order = positions.sort(-1)
    reached = probabilities.gather(-1, order).cumsum(-1)
    ends = torch.stack([(reached < share).sum(-1) for share in (0.1, 0.9)], -1)
    return positions.gather(-1, ends.clamp(max=positions.shape[-1] - 1))


def _positions(start: Tensor, moves: Tensor) -> Tensor:
    """Boxes [layers, 4] cxcywh and moves [R] in their sides, outwards positive -> [layers, 4, R], where sides lie."""
    centre, sides = start[:, :2, None], start[:, 2:, None]
    return torch.cat([centre - (0.5 + moves) * sides, centre + (0.5 + moves) * sides], 1)
