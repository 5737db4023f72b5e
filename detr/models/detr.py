"""DETR (Carion et al. 2020): one level, dense attention, learned queries, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from detr.backbones import BackboneConfig, build_backbone
from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import Config
from detr.image import DETR_INPUT, InputConfig
from detr.layers.attention import may_look
from detr.layers.position import precise, shrunk, sine_embedding
from detr.layers.transformer import MLP, DecoderLayer, EncoderLayer
from detr.models.initial_weights import spread
from detr.models.learned_queries import LearnedQueriesNetwork
from detr.models.network import Slots
from detr.models.postprocess import Scoring
from detr.records import Output, Predictions, Target


class EncoderConfig(Config):
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=2048, ge=1)  # of the feed-forward parts
    num_layers: int = Field(default=6, ge=1)


class DecoderConfig(Config):
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=2048, ge=1)  # of the feed-forward parts
    num_layers: int = Field(default=6, ge=1)
    eval_layers: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all


class DETRConfig(Config):
    arch: Literal["detr"] = "detr"
    slots: Slots = "index"
    num_queries: int = Field(default=100, ge=1)
    eval_queries: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all
    channels: int = Field(default=256, ge=8, multiple_of=4)
    dropout: float = Field(default=0.1, ge=0, lt=1)  # in training, of the attention weights and every branch
    backbone: BackboneConfig = ResNetConfig(variant="b", stages=(4,), frozen_norms=True, frozen_stages=2)
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    input: InputConfig = DETR_INPUT

    @model_validator(mode="after")
    def _fits(self) -> DETRConfig:
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            if self.channels % part.heads:
                raise ValueError(f"channels {self.channels} can't be shared among {name}.heads {part.heads}")
        if (self.decoder.eval_layers or 0) > self.decoder.num_layers:
            raise ValueError(f"decoder.eval_layers is more than the {self.decoder.num_layers} layers there are")
        if (self.eval_queries or 0) > self.num_queries:
            raise ValueError(f"eval_queries is more than the {self.num_queries} queries there are")
        return self


class DETRNetwork(LearnedQueriesNetwork):
    """The class head has one logit more than slots: the last says "no object".

    Queries were learned as a set and in no order, so each one that doesn't run leaves its own kind of object out.
    """

    def __init__(self, config: DETRConfig, classes: Classes) -> None:
        super().__init__(config, classes)
        channels = config.channels
        self.backbone = build_backbone(config.backbone, image_channels=config.input.channels)
        self.projection = nn.Conv2d(config.backbone.channels[-1], channels, 1)  # of the coarsest map; no other is used
        self.encoder = DenseEncoder(config.encoder, channels, dropout=config.dropout)
        self.queries = nn.Embedding(config.num_queries, channels)
        self.decoder = DenseDecoder(config.decoder, channels, self.num_slots + 1, dropout=config.dropout)

    def forward(self, images: Tensor, padding: Tensor | None = None, targets: list[Target] | None = None) -> Output:
        features = self.projection(self.backbone(images)[-1])
        memory = self.encoder(features, shrunk(padding, features))
        return Output(self.decoder(self.queries.weight[: self.num_running], memory))

    @property
    def scoring(self) -> Scoring:
        return Scoring(self.slots, exclusive=True)

    def heads(self) -> list[nn.Module]:
        return [self.decoder.score_head, self.decoder.box_head]

    def by_class(self) -> list[nn.Module]:
        return [self.decoder.score_head]

    def projecting(self) -> list[nn.Module]:
        return [self.projection]

    def cut(self) -> None:
        self.decoder.cut()
        kept = self.queries.weight[: self.config.eval_queries]
        self.queries = nn.Embedding.from_pretrained(kept.detach().clone())
        self.config = self.config.model_copy(update={"num_queries": len(kept), "eval_queries": None})


@dataclass(frozen=True, eq=False)
class DenseMemory:
    """What the decoder looks at: all of one map."""

    tokens: Tensor  # [B, S, D], row by row
    placed: Tensor  # [B, S, D], the same with their position
    mask: Tensor | None  # [B, 1, S] True where there is image; None where it fills the map


class DenseEncoder(nn.Module):
    """Every place of the map looks at every other."""

    def __init__(self, config: EncoderConfig, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(channels, config.heads, config.hidden, dropout=dropout) for _ in range(config.num_layers)
        )
        spread(self.layers)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> DenseMemory:
        """x [B, D, h, w], padding [B, h, w] True where there is no image."""
        position = sine_embedding(x, padding)
        mask = None if padding is None else may_look(padding.flatten(1))
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, position, mask)
        return DenseMemory(tokens, tokens + position, mask)


class DenseDecoder(nn.Module):
    """The queries look at each other and at all of the memory; one pair of heads reads every layer."""

    def __init__(self, config: DecoderConfig, channels: int, num_logits: int, *, dropout: float) -> None:
        super().__init__()
        self.eval_layers = config.eval_layers or config.num_layers
        self.layers = nn.ModuleList(
            DecoderLayer(channels, config.heads, config.hidden, dropout=dropout) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.score_head = nn.Linear(channels, num_logits)
        self.box_head = MLP(channels, channels, 4, 3)
        spread(self.layers)

    def forward(self, queries: Tensor, memory: DenseMemory) -> tuple[Predictions, ...]:
        """queries [Q, D] -> one `Predictions` per layer; in evaluation only the last.

        What a query is stays its position in every layer; what it has found starts as nothing.
        """
        position = queries.expand(memory.tokens.shape[0], -1, -1)
        x, predictions = torch.zeros_like(position), []
        num_layers = len(self.layers) if self.training else self.eval_layers
        for index, layer in enumerate(self.layers[:num_layers]):
            x = layer(x, position, memory.placed, memory.tokens, memory.mask)
            if self.training or index == num_layers - 1:
                predictions.append(self._read(x))
        return tuple(predictions)

    def _read(self, x: Tensor) -> Predictions:
        x = self.norm(x)
        return Predictions(self.score_head(x), precise(self.box_head(x)).sigmoid())

    def cut(self) -> None:
        """Forget the layers that evaluation doesn't run."""
        del self.layers[self.eval_layers :]
