"""How much of each position of the memory comes into a query: dense attention, and deformable attention made dense."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detr.explain.recording import DeformableCall, DenseCall
from detr.layers.position import precise
from detr.ops.locations import locations_of, sides_of


def weights_of(call: DenseCall | DeformableCall, image: int, queries: Sequence[int]) -> Tensor:
    """[N, M, S] float32 of these queries of one image of the batch.

    Times the values, summed over the positions and brought out by the module's projection, they are what the module
    gave: nothing else of the memory has come in. Of dense attention each row sums to 1; of deformable attention to 1
    less what lay outside of the maps or in padding, where zeros are read.
    """
    if isinstance(call, DenseCall):
        return _dense(call, image, list(queries))
    return splat(call, *points_of(call, image, queries), image=image)


def points_of(call: DeformableCall, image: int, queries: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where the queries looked and with what weights: [N, M, P, 2] xy in [0, 1] of the level's frame, and [N, M, P]."""
    heads, chosen = call.module.heads, list(queries)
    boxes = precise(call.boxes.expand(len(call.memory), *call.boxes.shape[1:])[image, chosen])
    offsets = precise(call.offsets[image, chosen]).unflatten(-1, (heads, -1, 2))
    logits = precise(call.logits[image, chosen]).unflatten(-1, (heads, -1))
    return locations_of(boxes[None], offsets[None], call.shapes, call.module.points)[0], logits.softmax(-1)


def level_of_each(points: Sequence[int]) -> list[int]:
    """[P], the level that each point is of."""
    return [level for level, count in enumerate(points) for _ in range(count)]


def splat(call: DeformableCall, locations: Tensor, weights: Tensor, *, image: int) -> Tensor:
    """Points as from `points_of` -> [N, M, S]: each weight goes to the positions its sample is made of, by their share.

    Bilinear samples are made of the four positions around them, discrete ones of the nearest.
    """
    points, shapes = call.module.points, call.shapes
    sides = sides_of(shapes, points, locations)
    starts = [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]
    first = torch.tensor([starts[level] for level in level_of_each(points)], device=locations.device)
    width = sides[:, 0].long()
    num_queries, heads, _ = weights.shape
    found = weights.new_zeros(num_queries, heads, sum(h * w for h, w in shapes))
    for cell, share in _corners(locations, sides, discrete=call.module.method == "discrete"):
        inside = ((cell >= 0) & (cell < sides)).all(-1)
        place = (first + cell[..., 1].long() * width + cell[..., 0].long()).where(inside, 0)
        found.scatter_add_(2, place, (weights * share).where(inside, 0))
    if call.padding is not None:
        found = found.masked_fill(call.padding[image], 0)
    return found


def _corners(locations: Tensor, sides: Tensor, *, discrete: bool) -> list[tuple[Tensor, Tensor]]:
    """Cells xy [N, M, P, 2] that a sample is made of, and their shares [N, M, P]."""
    if discrete:
        cell = torch.minimum((locations * sides + 0.5).trunc().clamp(min=0), sides - 1)
        return [(cell, torch.ones_like(cell[..., 0]))]
    places = locations * sides - 0.5
    low = places.floor()
    right, down = (places - low).unbind(-1)
    corners = []
    for x, across in ((0, 1 - right), (1, right)):
        for y, along in ((0, 1 - down), (1, down)):
            corners.append((low + low.new_tensor([x, y]), across * along))
    return corners


def _dense(call: DenseCall, image: int, queries: list[int]) -> Tensor:
    """softmax(q k / sqrt(Dh)), as `scaled_dot_product_attention` has it and doesn't say."""
    module, channels = call.module, call.query.shape[-1]
    weight, bias = module.project_in.weight, module.project_in.bias
    rows = call.query.expand(len(call.value), *call.query.shape[1:])[image, queries]
    query = F.linear(rows, weight[:channels], bias[:channels])
    key = F.linear(call.key[image], weight[channels : 2 * channels], bias[channels : 2 * channels])
    query, key = (precise(each).unflatten(-1, (module.heads, -1)).transpose(0, 1) for each in (query, key))
    logits = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5  # [M, N, S]
    if call.mask is not None:
        mask = call.mask.expand(len(call.value), *call.mask.shape[-2:])[image]
        logits = logits.masked_fill(~(mask[queries] if len(mask) > 1 else mask), -torch.inf)
    return logits.softmax(-1).transpose(0, 1)
