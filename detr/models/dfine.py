"""D-FINE (Peng et al. 2024): boxes are refined as distributions of where their edges lie.

DEIM (Huang et al. 2025) trains it with another activation and another loss.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from torch import nn

from detr.backbones import BackboneConfig
from detr.backbones.hgnetv2 import HGNetv2Config
from detr.classes import Classes
from detr.layers.conv import ConvNorm
from detr.layers.deformable import LARGEST_HALF, DeformableDecoderLayer
from detr.layers.transformer import ACTIVATIONS, MLP, Activation, FeedForward
from detr.models.fine_grained_decoder import FineGrainedConfig, FineGrainedDecoder
from detr.models.hybrid_encoder import Fusion, HybridEncoder, HybridEncoderConfig
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.queries import QuerySelection
from detr.models.selecting_network import SelectingConfig, SelectingNetwork


class EncoderConfig(HybridEncoderConfig):
    fusion: Fusion = "elan"


class DecoderConfig(FineGrainedConfig):
    activation: Activation = "relu"  # of the layers and heads; DEIM: silu


class DFINEConfig(SelectingConfig):
    arch: Literal["dfine"] = "dfine"
    backbone: BackboneConfig = HGNetv2Config()
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def _fits(self) -> DFINEConfig:
        channels, heads = self.encoder.channels, self.encoder.heads
        if channels % heads:
            raise ValueError(f"encoder.channels {channels} can't be shared among {heads} heads")
        levels, points = len(self.backbone.channels), len(self.decoder.points)
        if levels != points:
            raise ValueError(f"decoder.points is for {points} levels, the backbone gives {levels}")
        return self


class DFINENetwork(SelectingNetwork):
    def __init__(self, config: DFINEConfig, classes: Classes) -> None:
        super().__init__(config, classes)
        channels, activation = config.decoder.channels, ACTIVATIONS[config.decoder.activation]
        self.encoder = HybridEncoder(config.encoder, config.backbone.channels)
        self.projections = nn.ModuleList(
            ConvNorm(config.encoder.channels, channels) if config.encoder.channels != channels else nn.Identity()
            for _ in config.backbone.channels
        )
        self.queries = QuerySelection(channels, self.num_slots, activation())
        self.denoising = self._denoising(turned=True)
        self.decoder = FineGrainedDecoder(
            config.decoder,
            self.num_slots,
            layer=lambda: _layer(config.decoder),
            position_head=MLP(4, 2 * channels, channels, 2, activation()),
            activation=activation,
        )
        self._initialise()

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
