"""From a recorded pass to what each detection looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr.bands import Bands
from detr.boxes import cxcywh_to_xyxy
from detr.errors import InputError
from detr.explain.attention import level_of_each, points_of, weights_of
from detr.explain.levels import levels_of
from detr.explain.readings import said_by_layers, sides_of
from detr.explain.recording import DeformableCall, Recording
from detr.explain.records import EncoderAttention, Explanation, Points, Proposal, Sides, Step
from detr.layers.position import precise
from detr.models.fine_grained_decoder import FineGrainedDecoder
from detr.models.network import DetectionNetwork
from detr.models.proposals import Proposals, ProposalSelection
from detr.records import Detections

_SAME = 0.02
"""As shares of the picture and of the score: a detection as near as this is the same; batches change the last bits."""


@torch.inference_mode()
def explanations(
    recorded: Recording,
    network: DetectionNetwork,
    image: Bands,
    found: Detections,
    names: Mapping[int, str],
    *,
    place: int = 0,
    queries: Sequence[int] | None = None,
) -> list[Explanation]:
    """One for each of `found`, whose boxes are in pixels of `image` and not clipped to it.

    `network` is the one whose copy was recorded, with all of its heads; `place` is the image's in the batch.
    `queries` are theirs, where known. InputError for a detection that this pass doesn't give.
    """
    if len(found) == 0:
        return []
    view = View(recorded, network, image.shape[0], image.shape[1], place)
    if queries is None:
        found_rows = zip(found.boxes, found.scores, found.labels.tolist(), strict=True)
        queries = [view.query_of(*each) for each in found_rows]
    weights = [weights_of(call, place, queries).cpu().numpy() for call in recorded.looks]
    points, encoder = view.points(queries), view.encoder()
    return [
        Explanation(
            image=image,
            label=label,
            name=names[label],
            score=float(found.scores[number]),
            box=_four(found.boxes[number]),
            query=query,
            levels=view.levels,
            weights=np.stack([layer[number] for layer in weights]),
            points=None if points is None else points[number],
            steps=view.steps(query, label),
            start=view.start(query),
            proposal=view.proposal(query),
            sides=view.sides(query),
            encoder=encoder,
        )
        for number, (query, label) in enumerate(zip(queries, found.labels.tolist(), strict=True))
    ]


class View:
    """A recorded pass as seen from one image of its batch."""

    def __init__(self, recorded: Recording, network: DetectionNetwork, height: int, width: int, place: int) -> None:
        assert recorded.output is not None and recorded.looks, "nothing was recorded"
        self.recorded, self.network, self.place = recorded, network, place
        self.size = (height, width)
        self.levels = levels_of(recorded.looks[0], place, recorded.coarsest)
        self.layers = said_by_layers(recorded, network)

    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """At last: boxes [Q, 4] xyxy in pixels, probabilities [Q, C] of the classes, and of those that are said."""
        assert self.recorded.output is not None
        last = self.recorded.output.layers[-1]
        logits, scoring = last.logits[[self.place]], self.network.scoring
        return self._in_pixels(last.boxes[self.place]).cpu(), scoring.chances(logits)[0].cpu(), scoring(logits)[0].cpu()

    def starts(self) -> Tensor | None:
        """[Q, 4] xyxy in pixels, the boxes that queries begin with; None where they begin with none."""
        begun = [self.start(query) for query in range(self.recorded.looks[0].output.shape[1])]
        return torch.tensor(begun) if begun[0] is not None and len(begun[0]) == 4 else None

    def proposed(self) -> tuple[Tensor, int] | None:
        """The boxes [S, 4] xyxy in pixels of all positions, the best first, and how many start; None of one stage."""
        if self.recorded.selection is None:
            return None
        module, selected, memory = self.recorded.selection
        device, dtype, enabled = self.recorded.autocast
        with torch.autocast(device, dtype, enabled=enabled):
            every = module.forward(memory, memory.tokens.shape[1])  # past the hooks
        logits = (every.chosen if isinstance(every, Proposals) else every).boxes[self.place]
        boxes = torch.where(logits.isfinite().all(-1, keepdim=True), logits.sigmoid(), 0.0)
        return self._in_pixels(boxes).cpu(), selected.positions.shape[1]

    def query_of(self, box: Tensor, score: Tensor, label: int) -> int:
        """The query whose box and score these are."""
        assert self.recorded.output is not None
        last = self.recorded.output.layers[-1]
        boxes = self._in_pixels(last.boxes[self.place]).cpu()
        scores = self.network.scoring(last.logits)[self.place, :, label].cpu()
        distance = (boxes - box.to(boxes)).abs().amax(-1) / max(self.size) + (scores - score.to(scores)).abs()
        query = int(distance.argmin())
        if distance[query] > _SAME:
            raise InputError(
                "this picture doesn't give that detection any more: the model or its settings have changed, "
                "or it was found in a part of the picture"
            )
        return query

    def points(self, queries: Sequence[int]) -> list[Points] | None:
        """Of each query; None where attention is dense."""
        calls = [call for call in self.recorded.looks if isinstance(call, DeformableCall)]
        if not calls:
            return None
        levels = level_of_each(calls[0].module.points)
        height, width = self.size
        share = np.array([self.levels[level].image_share for level in levels], np.float32)
        pixels = np.array([width, height], np.float32) / share  # [P, 2]
        looked = [points_of(call, self.place, queries) for call in calls]
        xy = np.stack([locations.cpu().numpy() for locations, _ in looked], 1) * pixels  # [N, layers, M, P, 2]
        weights = np.stack([each.cpu().numpy() for _, each in looked], 1)
        return [Points(*each, tuple(levels)) for each in zip(xy, weights, strict=True)]

    def steps(self, query: int, label: int) -> tuple[Step, ...]:
        if len(self.layers) == len(self.recorded.looks):
            return tuple(
                Step(
                    self._box(layer.boxes[self.place, query]),
                    self._score(layer.logits, query, label),
                )
                for layer in self.layers
            )
        begun = [self.start(query, layer) for layer in range(1, len(self.recorded.looks))]
        assert self.recorded.output is not None
        last = self.recorded.output.layers[-1]
        return (
            *(Step(box if box is not None and len(box) == 4 else None, None) for box in begun),
            Step(self._box(last.boxes[self.place, query]), self._score(last.logits, query, label)),
        )

    def start(self, query: int, layer: int = 0) -> Any:
        """What a layer began with: xyxy, or xy, in pixels; None where attention is dense."""
        call = self.recorded.looks[layer]
        if not isinstance(call, DeformableCall):
            return None
        boxes = call.boxes.expand(len(call.memory), *call.boxes.shape[1:])[self.place, query]
        if boxes.dim() == 2:  # [L, 2 or 4], as shares of the frame of each level
            across, down = self.levels[0].image_share
            boxes = boxes[0] / boxes.new_tensor([across, down] * (boxes.shape[-1] // 2))
        if boxes.shape[-1] == 4:
            return self._box(boxes)
        x, y = boxes.tolist()
        return x * self.size[1], y * self.size[0]

    def proposal(self, query: int) -> Proposal | None:
        if self.recorded.selection is None:
            return None
        module, selected, _ = self.recorded.selection
        position = int(selected.positions[self.place, query])
        level = next(n for n, each in enumerate(self.levels) if position < each.start + each.size)
        row, column = divmod(position - self.levels[level].start, self.levels[level].width)
        chosen = selected.chosen if isinstance(selected, Proposals) else selected.proposals
        logits = chosen.logits[self.place, query]
        boxes = (selected.chosen if isinstance(selected, Proposals) else selected).boxes[self.place, query]  # logits
        if isinstance(module, ProposalSelection) and module.ranked_by == "first slot":
            score, label = float(precise(logits)[0].sigmoid()), None
        else:
            best, index = self.network.scoring(logits[None, None])[0, 0].max(-1)
            score, label = float(best), int(index)
        x, y = self.levels[level].middle(row, column)
        box = self._box(boxes.sigmoid()) if bool(torch.isfinite(boxes).all()) else None
        middle = (x * self.size[1], y * self.size[0])
        return Proposal(query, level, row, column, middle, score, label, box)

    def sides(self, query: int) -> Sides | None:
        """Of the layers that could be read: all, or the last."""
        decoder = self.network.decoder
        if not isinstance(decoder, FineGrainedDecoder):
            return None
        edges = [layer.edges for layer in self.layers if layer.edges is not None]
        return sides_of(edges, decoder, (self.place, query), self.size)

    def encoder(self) -> EncoderAttention | None:
        calls = tuple(self.recorded.encoder)
        if not calls:
            return None
        (level,) = levels_of(calls[0], self.place, self.recorded.coarsest)
        return EncoderAttention(level, calls, self.place, self.size)

    def _score(self, logits: Tensor, query: int, label: int) -> float:
        """The probability of a class, also where the query says another."""
        return float(self.network.scoring.chances(logits[self.place, query][None, None])[0, 0, label])

    def _in_pixels(self, boxes: Tensor) -> Tensor:
        """[..., 4] cxcywh in [0, 1] -> xyxy, computed as `select` does."""
        height, width = self.size
        corners = cxcywh_to_xyxy(precise(boxes))
        return corners * corners.new_tensor([width, height, width, height])

    def _box(self, box: Tensor) -> tuple[float, float, float, float]:
        return _four(self._in_pixels(box))


def _four(box: Tensor) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
