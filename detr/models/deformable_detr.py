"""Deformable DETR (Zhu et al. 2021): plain, with iterative refinement of the boxes, and with that in two stages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from detr.backbones import BackboneConfig, build_backbone
from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import Config
from detr.image import DETR_INPUT, InputConfig
from detr.layers.deformable import DeformableDecoderLayer
from detr.layers.position import inverse_sigmoid, precise, sine_of_boxes
from detr.layers.transformer import MLP, FeedForward
from detr.layers.valid_area import on_levels, valid_ratios
from detr.models.deformable_encoder import DeformableEncoder, DeformableEncoderConfig
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.learned_queries import LearnedQueriesNetwork
from detr.models.network import Slots
from detr.models.proposals import ProposalSelection
from detr.models.queries import Memory
from detr.records import Output, Predictions, Target

_FIRST_SIDE = -2.0  # the logit of a side, where boxes start from points


class DecoderConfig(Config):
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=1024, ge=1)  # of the feed-forward parts
    num_layers: int = Field(default=6, ge=1)
    eval_layers: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all
    points: int = Field(default=4, ge=1)  # per head on each level
    dropout: float = Field(default=0.1, ge=0, lt=1)


class DeformableDETRConfig(Config):
    arch: Literal["deformable_detr"] = "deformable_detr"
    refine: bool = False  # each layer moves the boxes of the layer before; else every layer starts from one point
    two_stage: bool = False  # the queries are what the encoder proposes; else they are learned
    slots: Slots = "index"
    num_queries: int = Field(default=300, ge=1)
    eval_queries: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all
    backbone: BackboneConfig = ResNetConfig(variant="b", frozen_norms=True, frozen_stages=2)
    encoder: DeformableEncoderConfig = DeformableEncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    input: InputConfig = DETR_INPUT

    @model_validator(mode="after")
    def _fits(self) -> DeformableDETRConfig:
        if self.two_stage and not self.refine:
            raise ValueError("two_stage needs refine: what the encoder proposes is to be refined")
        check_parts(self)
        return self


class DeformableDETRNetwork(LearnedQueriesNetwork):
    def __init__(self, config: DeformableDETRConfig, classes: Classes) -> None:
        super().__init__(config, classes)
        channels = config.encoder.channels
        self.backbone = build_backbone(config.backbone, image_channels=config.input.channels)
        self.encoder = DeformableEncoder(config.encoder, config.backbone.channels)
        self.queries: LearnedPoints | ProposedBoxes
        if config.two_stage:
            self.queries = ProposedBoxes(channels, self.num_slots)
        else:
            self.queries = LearnedPoints(config.num_queries, channels)
        self.decoder = DeformableDecoder(config, self.num_slots)

    def forward(self, images: Tensor, padding: Tensor | None = None, targets: list[Target] | None = None) -> Output:
        memory = self.encoder(self.backbone(images), padding)
        start = self.queries(memory, self.num_running)
        layers = self.decoder(start, memory)
        return Output(layers, start.proposals if self.training else None)

    def heads(self) -> list[nn.Module]:
        queries, decoder = self.queries, self.decoder
        proposing = [queries.select.score_head, queries.select.box_head] if isinstance(queries, ProposedBoxes) else []
        return [*proposing, decoder.score_heads, decoder.box_heads]

    def by_class(self) -> list[nn.Module]:
        return [*self.by_object(), *self.decoder.score_heads]

    def by_object(self) -> list[nn.Module]:
        return [self.queries.select.score_head] if isinstance(self.queries, ProposedBoxes) else []

    def projecting(self) -> list[nn.Module]:
        return [self.encoder.projections]

    def looking(self) -> list[nn.Module]:
        points = [self.queries.point] if isinstance(self.queries, LearnedPoints) else []
        return [*super().looking(), *points]

    def cut(self) -> None:
        self.decoder.cut()


@dataclass(frozen=True, eq=False)
class Start:
    """What the decoder starts from."""

    content: Tensor  # [B, Q, D]
    position: Tensor  # [B, Q, D], the same for all layers
    boxes: Tensor  # [B, Q, 2 or 4] points, or boxes cxcywh, in [0, 1]
    proposals: Predictions | None = None  # of all S positions, with gradient, for the encoder's own losses


class LearnedPoints(nn.Module):
    """Every query is learned, and says where it looks."""

    def __init__(self, num_queries: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_queries, 2 * channels)
        self.point = nn.Linear(channels, 2)
        spread([self.point])
        nn.init.zeros_(self.point.bias)

    def forward(self, memory: Memory, num_queries: int) -> Start:
        """The first `num_queries`."""
        position, content = self.embedding.weight[:num_queries].chunk(2, -1)
        points = precise(self.point(position)).sigmoid()
        starts = (content, position, points)
        content, position, points = (each.expand(memory.tokens.shape[0], -1, -1) for each in starts)
        return Start(content, position, points)


class ProposedBoxes(nn.Module):
    """The best proposals of the encoder, ranked by their first slot; content and position are made of the box alone."""

    def __init__(self, channels: int, num_slots: int) -> None:
        super().__init__()
        self.select = ProposalSelection(channels, num_slots, ranked_by="first slot")
        self.embed = nn.Linear(2 * channels, 2 * channels)
        self.norm = nn.LayerNorm(2 * channels)
        spread([self.embed])

    def forward(self, memory: Memory, num_queries: int) -> Start:
        proposals = self.select(memory, num_queries)
        boxes = proposals.chosen.boxes.detach().sigmoid()
        waves = sine_of_boxes(boxes, self.embed.in_features // 4).to(memory.tokens.dtype)
        position, content = self.norm(self.embed(waves)).chunk(2, -1)
        every = proposals.all
        return Start(content, position, boxes, Predictions(every.logits, every.boxes.sigmoid()))


class DeformableDecoder(nn.Module):
    """Layers, and the heads that read them: a pair for each with refinement, else one pair for all."""

    def __init__(self, config: DeformableDETRConfig, num_slots: int) -> None:
        super().__init__()
        channels, decoder = config.encoder.channels, config.decoder
        self.refine, self.eval_layers = config.refine, decoder.eval_layers or decoder.num_layers
        self.layers = decoder_layers(decoder, channels, config.encoder.levels)
        num_heads = decoder.num_layers if config.refine else 1
        self.score_heads = nn.ModuleList(nn.Linear(channels, num_slots) for _ in range(num_heads))
        box_heads = [MLP(channels, channels, 4, 3) for _ in range(num_heads)]
        start_scores(self.score_heads)
        start_at_zero(box_heads)
        if not config.two_stage:
            last = box_heads[0].layers[-1]
            assert isinstance(last, nn.Linear)
            nn.init.constant_(last.bias.data[2:], _FIRST_SIDE)
        self.box_heads = nn.ModuleList(box_heads)

    def forward(self, start: Start, memory: Memory) -> tuple[Predictions, ...]:
        """One `Predictions` per layer; in evaluation only the last. Refined boxes go on without gradient."""
        num_layers = len(self.layers) if self.training else self.eval_layers
        ratios = valid_ratios(memory.padding, memory.shapes)
        x, boxes, predictions = start.content, start.boxes, []
        for index, layer in enumerate(self.layers[:num_layers]):
            x = layer(x, start.position, on_levels(boxes, ratios), memory.tokens, memory.shapes, padding=memory.padding)
            heads = index if self.refine else 0
            is_read = self.training or index == num_layers - 1
            if is_read or self.refine:
                found = _moved(boxes, precise(self.box_heads[heads](x)))
            if is_read:
                predictions.append(Predictions(self.score_heads[heads](x), found))
            if self.refine:
                boxes = found.detach()
        return tuple(predictions)

    def cut(self) -> None:
        """Forget the layers that evaluation doesn't run."""
        for parts in (self.layers, self.score_heads, self.box_heads):
            del parts[self.eval_layers :]


def _moved(boxes: Tensor, step: Tensor) -> Tensor:
    """A step [B, Q, 4] in logits from boxes, or from points, whose sides are in the step alone."""
    start = inverse_sigmoid(boxes)
    return (step + F.pad(start, (0, 4 - start.shape[-1]))).sigmoid()


def decoder_layers(config: DecoderConfig, channels: int, levels: int) -> nn.ModuleList:
    """As they are in Deformable DETR and in DINO, with their official start."""
    layers = [
        DeformableDecoderLayer(
            channels,
            config.heads,
            config.hidden,
            (config.points,) * levels,
            feed_forward=partial(FeedForward, dropout=config.dropout),
            dropout=config.dropout,
        )
        for _ in range(config.num_layers)
    ]
    for layer in layers:
        spread([layer.self_attention, layer.feed_forward])
    return nn.ModuleList(layers)


def check_parts(config: Any) -> None:
    """ValueError where the parts of a model don't fit together."""
    encoder, decoder = config.encoder, config.decoder
    if encoder.channels % decoder.heads:
        raise ValueError(f"encoder.channels {encoder.channels} can't be shared among decoder.heads {decoder.heads}")
    if encoder.levels < len(config.backbone.channels):
        raise ValueError(f"encoder.levels {encoder.levels}: the backbone gives {len(config.backbone.channels)}")
    if (decoder.eval_layers or 0) > decoder.num_layers:
        raise ValueError(f"decoder.eval_layers is more than the {decoder.num_layers} layers there are")
    if (config.eval_queries or 0) > config.num_queries:
        raise ValueError(f"eval_queries is more than the {config.num_queries} queries there are")
