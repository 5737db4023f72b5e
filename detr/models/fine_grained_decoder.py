"""The decoder of D-FINE (Peng et al. 2024): each layer refines where the edges of a box lie, as distributions.

The first layer says a start box. From then on all layers add to the same four distributions over how far the edges of
the start box move. DEIMv2 (Huang et al. 2025) has the same decoder of other parts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from detr.config import Config
from detr.layers.deformable import DeformableDecoderLayer, Method
from detr.layers.edges import bin_positions, boxes_from_edges, expected_moves
from detr.layers.position import inverse_sigmoid, precise
from detr.layers.transformer import MLP
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.queries import Memory
from detr.records import Edges, Predictions

_LARGEST_POSITION = 10.0
_LIKELIEST_BINS = 4  # that tell the quality of a distribution
_QUALITY_HIDDEN = 64


class FineGrainedConfig(Config):
    channels: int = Field(default=256, ge=8)
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=1024, ge=1)  # of the feed-forward parts
    num_layers: int = Field(default=6, ge=1)
    eval_layers: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all
    points: tuple[int, ...] = (3, 6, 3)  # per head on each level, fine to coarse
    sampling: Method = "bilinear"
    bins: int = Field(default=33, ge=5)  # of the distribution of an edge
    scale: float = Field(default=4.0, gt=0)  # of the bins' positions: see `bin_positions`
    up: float = Field(default=0.5, gt=0)  # likewise

    @model_validator(mode="after")
    def _fits(self) -> FineGrainedConfig:
        if self.channels % self.heads:
            raise ValueError(f"channels {self.channels} can't be shared among {self.heads} heads")
        if (self.eval_layers or 0) > self.num_layers:
            raise ValueError(f"eval_layers is more than the {self.num_layers} layers there are")
        if not self.points or min(self.points) < 1:
            raise ValueError("points: every level needs at least one point")
        if self.bins % 2 == 0:
            raise ValueError(f"bins {self.bins}: expected an odd number, one of them is in the middle")
        return self


class FineGrainedDecoder(nn.Module):
    """Queries -> one `Predictions` per layer, and the start.

    `layer` makes a decoder layer and `position_head` turns boxes [B, Q, 4] into positions [B, Q, D]; with
    `position_once` those of the first boxes serve all layers. With `shared_box_head` all layers have the same one.
    `activation` is of the heads.
    """

    def __init__(
        self,
        config: FineGrainedConfig,
        num_classes: int,
        *,
        layer: Callable[[], DeformableDecoderLayer],
        position_head: nn.Module,
        activation: Callable[[], nn.Module] = nn.ReLU,
        position_once: bool = False,
        shared_box_head: bool = False,
    ) -> None:
        super().__init__()
        channels, count = config.channels, config.num_layers
        self.scale, self.up, self.bins = config.scale, config.up, config.bins
        self.eval_layers = config.eval_layers or count
        self.position_once = position_once
        self.layers = nn.ModuleList(layer() for _ in range(count))
        self.position_head = position_head
        self.start_head = MLP(channels, channels, 4, 3, activation())
        self.score_heads = nn.ModuleList(nn.Linear(channels, num_classes) for _ in range(count))
        self.box_heads = nn.ModuleList(
            MLP(channels, channels, 4 * config.bins, 3, activation()) for _ in range(1 if shared_box_head else count)
        )
        self.quality_heads = nn.ModuleList(Quality(activation()) for _ in range(count))

    def forward(
        self, x: Tensor, boxes: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[tuple[Predictions, ...], Predictions | None]:
        """x [B, Q, D], boxes [B, Q, 4] logits, mask [Q, Q]; in evaluation only the last layer, and no start.

        Distributions are passed on with gradient, so the loss of a layer teaches all before it; boxes and the content
        that the next box head sees beside its own are passed on without.
        """
        num_layers = len(self.layers) if self.training else self.eval_layers
        reference = boxes.sigmoid()
        fixed, before, edges, start = reference, torch.zeros_like(x), None, None
        predictions = []
        for index in range(num_layers):
            if index == 0 or not self.position_once:
                position = self._position(reference, like=x)
            x = self.layers[index](
                x, position, reference, memory.tokens, memory.shapes, padding=memory.padding, mask=mask
            )
            if index == 0:
                begin = (precise(self.start_head(x)) + inverse_sigmoid(reference)).sigmoid()
                fixed = begin.detach()
            step = precise(self._box_head(index)(x + before)).unflatten(-1, (4, -1))
            edges = step if edges is None else edges + step
            refined = self._boxes(edges, fixed)
            if self.training or index == num_layers - 1:
                logits = self.score_heads[index](x)
                if index == 0:
                    start = Predictions(logits, begin)
                logits = logits + self.quality_heads[index](edges, like=x)
                predictions.append(Predictions(logits, refined, Edges(edges, fixed)))
            before, reference = x.detach(), refined.detach()
        return tuple(predictions), start if self.training else None

    def heads(self) -> list[nn.Module]:
        """Whatever says classes and boxes."""
        return [self.start_head, self.score_heads, self.box_heads, self.quality_heads]

    def initialise(self) -> None:
        """The official start of what says something; the layers have theirs."""
        spread([self.position_head])
        start_scores(self.score_heads)
        start_at_zero([self.start_head, *self.box_heads])

    def cut(self) -> None:
        """Forget the layers that evaluation doesn't run, and what scores in those that don't answer."""
        for parts in (self.layers, self.score_heads, self.box_heads, self.quality_heads):
            del parts[self.eval_layers :]
        for index in range(self.eval_layers - 1):
            self.score_heads[index] = self.quality_heads[index] = nn.Identity()

    def _position(self, reference: Tensor, *, like: Tensor) -> Tensor:
        return self.position_head(reference.to(like.dtype)).clamp(-_LARGEST_POSITION, _LARGEST_POSITION)

    def _box_head(self, index: int) -> nn.Module:
        return self.box_heads[min(index, len(self.box_heads) - 1)]

    def _boxes(self, edges: Tensor, fixed: Tensor) -> Tensor:
        positions = bin_positions(self.bins, scale=self.scale, up=self.up, dtype=edges.dtype, device=edges.device)
        return boxes_from_edges(expected_moves(edges, positions), fixed, scale=self.scale)


class Quality(nn.Module):
    """What the likeliest bins of a box's edges say about how well it lies, added to the logits of all classes."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.head = MLP(4 * (_LIKELIEST_BINS + 1), _QUALITY_HIDDEN, 1, 2, activation)
        start_at_zero([self.head])

    def forward(self, edges: Tensor, like: Tensor) -> Tensor:
        """[B, Q, 4, R] logits -> [B, Q, 1], computed in the type of `like`"""
        likeliest = edges.softmax(-1).topk(_LIKELIEST_BINS, -1).values
        statistics = torch.cat([likeliest, likeliest.mean(-1, keepdim=True)], -1)
        return self.head(statistics.flatten(-2).to(like.dtype))
