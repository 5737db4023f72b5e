"""Boxes as four edges, each a distribution over bins of moves (Peng et al. 2024, "D-FINE", section 4.1).

An edge moves away from where the start box has it; bins lie close together around "stays" and far apart at the ends.
Moves are in sides of the start box, times `scale`; they come in the order left, top, right, bottom, outwards positive.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from detr.layers.tables import kept

_SMALLEST_SIDE = 1e-16


@kept
def bin_positions(
    bins: int = 33,
    *,
    scale: float = 4.0,
    up: float = 0.5,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """[R], ascending and odd about 0: the paper's W(n), computed in float64.

    `up` is the farthest that all bins but the outer two reach, in sides of the start box; the outer two reach twice as
    far. `scale` sets how much closer the inner ones lie. `bins` is odd and at least 5.
    """
    assert bins >= 5 and bins % 2 == 1, "there is a bin in the middle, and two on each side of it"
    reach = abs(up) * abs(scale)
    step = (reach + 1) ** (2 / (bins - 3))
    made: dict[str, Any] = {"dtype": torch.float64, "device": "cpu" if torch.device(device).type == "mps" else device}
    inner = step ** torch.arange(1, bins // 2, **made) - 1
    half = torch.cat([inner, torch.full((1,), 2 * reach, **made)])
    return torch.cat([-half.flip(0), torch.zeros(1, **made), half]).to(dtype).to(device)


def expected_moves(logits: Tensor, positions: Tensor) -> Tensor:
    """Distributions [..., 4, R] over bins at [R] -> the mean move of each edge [..., 4]."""
    return logits.softmax(-1) @ positions.to(logits)


def boxes_from_edges(moves: Tensor, start: Tensor, *, scale: float = 4.0) -> Tensor:
    """Moves [..., 4] of the edges of start boxes [..., 4] cxcywh -> boxes [..., 4] cxcywh."""
    centre, sides = start[..., :2], start[..., 2:]
    low = centre - (0.5 + moves[..., :2] / scale) * sides
    high = centre + (0.5 + moves[..., 2:] / scale) * sides
    return xyxy_to_cxcywh(torch.cat([low, high], -1))


def moves_from_boxes(boxes: Tensor, start: Tensor, *, scale: float = 4.0) -> Tensor:
    """The way back: boxes [..., 4] cxcywh -> the moves [..., 4] that lead there from the start boxes."""
    low, high = cxcywh_to_xyxy(boxes).chunk(2, -1)
    centre, sides = start[..., :2], start[..., 2:] / scale + _SMALLEST_SIDE
    return torch.cat([(centre - low) / sides, (high - centre) / sides], -1) - 0.5 * scale


def edges_from_boxes(boxes: Tensor, start: Tensor, positions: Tensor, *, scale: float = 4.0) -> tuple[Tensor, Tensor]:
    """What the distributions should be for `boxes` [..., 4] cxcywh: all weight on two neighbouring bins.

    -> the left one of the two [..., 4] int64, and the weight of the right one [..., 4] in [0, 1]; the left one has the
    rest. A move beyond the outermost bin counts as that bin.
    """
    positions = positions.to(start)
    moves = moves_from_boxes(boxes, start, scale=scale).clamp(positions[0], positions[-1])
    left = (torch.searchsorted(positions, moves.contiguous(), right=True) - 1).clamp(0, len(positions) - 2)
    below, above = positions[left], positions[left + 1]
    return left, (moves - below) / (above - below)
