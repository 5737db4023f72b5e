"""D-FINE (Peng et al. 2024): boxes are refined as distributions of where their edges lie.

DEIM (Huang et al. 2025) trains it with another activation and another loss.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from detr.backbones import BackboneConfig, build_backbone
from detr.backbones.hgnetv2 import HGNetv2Config
from detr.classes import Classes
from detr.config import Config
from detr.image import InputConfig
from detr.layers.conv import ConvNorm
from detr.layers.deformable import DeformableDecoderLayer
from detr.layers.transformer import ACTIVATIONS, MLP, Activation, FeedForward
from detr.models.denoising import ContrastiveDenoising
from detr.models.fine_grained_decoder import LARGEST_HALF, FineGrainedConfig, FineGrainedDecoder
from detr.models.hybrid_encoder import Fusion, HybridEncoder, HybridEncoderConfig
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.network import DetectionNetwork, Slots
from detr.models.queries import QuerySelection, memory_of, shrunk
from detr.models.training_queries import training_queries
from detr.records import Output, Target


class EncoderConfig(HybridEncoderConfig):
    fusion: Fusion = "elan"


class DecoderConfig(FineGrainedConfig):
    activation: Activation = "relu"  # of the layers and heads; DEIM: silu


class DFINEConfig(Config):
    arch: Literal["dfine"] = "dfine"
    slots: Slots = "index"
    num_queries: int = Field(default=300, ge=1)
    num_denoising: int = Field(default=100, ge=0)  # positive denoising queries per image in training, about
    label_noise: float = Field(default=0.5, ge=0, le=1)
    box_noise: float = Field(default=1.0, ge=0)
    backbone: BackboneConfig = HGNetv2Config()
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    input: InputConfig = InputConfig()

    @model_validator(mode="after")
    def _fits(self) -> DFINEConfig:
        channels, heads = self.encoder.channels, self.encoder.heads
        if channels % heads:
            raise ValueError(f"encoder.channels {channels} can't be shared among {heads} heads")
        levels, points = len(self.backbone.channels), len(self.decoder.points)
        if levels != points:
            raise ValueError(f"decoder.points is for {points} levels, the backbone gives {levels}")
        return self


class DFINENetwork(DetectionNetwork):
    denoising: ContrastiveDenoising | None

    def __init__(self, config: DFINEConfig, classes: Classes) -> None:
        super().__init__(config, classes)
        channels, activation = config.decoder.channels, ACTIVATIONS[config.decoder.activation]
        self.backbone = build_backbone(config.backbone)
        self.encoder = HybridEncoder(config.encoder, config.backbone.channels)
        self.projections = nn.ModuleList(
            ConvNorm(config.encoder.channels, channels) if config.encoder.channels != channels else nn.Identity()
            for _ in config.backbone.channels
        )
        self.queries = QuerySelection(channels, self.num_slots, activation())
        self.denoising = None
        if config.num_denoising > 0:
            self.denoising = ContrastiveDenoising(
                channels,
                self.num_slots,
                num_denoising=config.num_denoising,
                label_noise=config.label_noise,
                box_noise=config.box_noise,
                turned=True,
            )
        self.decoder = FineGrainedDecoder(
            config.decoder,
            self.num_slots,
            layer=lambda: _layer(config.decoder),
            position_head=MLP(4, 2 * channels, channels, 2, activation()),
            activation=activation,
        )
        self._initialise()

    def forward(self, images: Tensor, padding: Tensor | None = None, targets: list[Target] | None = None) -> Output:
        features = self.backbone(images)
        maps = self.encoder(features, shrunk(padding, like=features[-1]))
        maps = [project(each) for project, each in zip(self.projections, maps, strict=True)]
        memory = memory_of(maps, padding)
        selected = self.queries(memory, self.config.num_queries)
        if not self.training:
            return Output(self.decoder(selected.content, selected.boxes, memory)[0])
        queries = training_queries(selected.content, selected.boxes, self.denoising, targets)
        layers, start = self.decoder(queries.content, queries.boxes, memory, queries.mask)
        return queries.output(layers, selected.proposals, start)

    def heads(self) -> list[nn.Module]:
        heads = [self.queries.score_head, self.queries.box_head, *self.decoder.heads()]
        return heads if self.denoising is None else [*heads, self.denoising]

    def by_class(self) -> list[nn.Module]:
        modules: list[nn.Module] = [self.queries.score_head, *self.decoder.score_heads]
        return modules if self.denoising is None else [*modules, self.denoising.class_embedding]

    def projecting(self) -> list[nn.Module]:
        return [self.encoder.projections, self.queries]

    def cut(self) -> None:
        self.denoising = None
        self.decoder.cut()

    def _initialise(self) -> None:
        """The official start. What isn't named here starts as PyTorch does it."""
        spread([self.queries.embed, *self.projections, *(each.feed_forward for each in self.decoder.layers)])
        start_scores([self.queries.score_head])
        start_at_zero([self.queries.box_head])
        self.decoder.initialise()


def _layer(config: DecoderConfig) -> DeformableDecoderLayer:
    return DeformableDecoderLayer(
        config.channels,
        config.heads,
        config.hidden,
        config.points,
        method=config.sampling,
        clamp=LARGEST_HALF,
        projected=False,
        gated=True,
        feed_forward=lambda channels, hidden: FeedForward(channels, hidden, ACTIVATIONS[config.activation]()),
    )
