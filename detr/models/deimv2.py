"""DEIMv2 (Huang et al. 2025): D-FINE's refinement of edges with lighter blocks, down to half a million parameters.

Queries are selected from the memory as it is, and their positions computed once, of the selected boxes; norms are
RMSNorm, feed-forward parts SwiGLU. The smallest sizes take one level, have no gate, and one box head for all layers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator
from torch import Tensor, nn

from detr.backbones import BackboneConfig
from detr.backbones.hgnetv2 import HGNetv2Config
from detr.classes import Classes
from detr.layers.conv import ConvNorm
from detr.layers.deformable import LARGEST_HALF, DeformableDecoderLayer
from detr.layers.position import precise
from detr.layers.transformer import MLP, SwiGLU
from detr.models.fine_grained_decoder import FineGrainedConfig, FineGrainedDecoder
from detr.models.hybrid_encoder import Fusion, HybridEncoder, HybridEncoderConfig, Merge, Project
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.lite_encoder import LiteEncoder, LiteEncoderConfig, PooledConv
from detr.models.queries import QuerySelection
from detr.models.selecting_network import SelectingConfig, SelectingNetwork

_LEAST = 1e-6  # added to the mean square of an RMSNorm


class WholeEncoderConfig(HybridEncoderConfig):
    kind: Literal["hybrid"] = "hybrid"
    fusion: Fusion = "elan-joint"
    merge: Merge = "sum"
    project: Project = "unequal"


def _kind(given: Any) -> str:
    return given.get("kind", "hybrid") if isinstance(given, dict) else getattr(given, "kind", "hybrid")


EncoderConfig = Annotated[
    Annotated[WholeEncoderConfig, Tag("hybrid")] | Annotated[LiteEncoderConfig, Tag("lite")], Discriminator(_kind)
]


class DEIMv2Config(SelectingConfig):
    arch: Literal["deimv2"] = "deimv2"
    backbone: BackboneConfig = HGNetv2Config(size="B0", affine=True, stages=(3, 4))
    encoder: EncoderConfig = WholeEncoderConfig(channels=128, hidden=512, expansion=0.34, depth=0.5)
    decoder: FineGrainedConfig = FineGrainedConfig(channels=128, hidden=256, num_layers=3, points=(6, 6))
    gated: bool = True  # what the image adds to a query comes in by a gate
    shared_boxes: bool = False  # one box head for all layers

    @model_validator(mode="after")
    def _fits(self) -> DEIMv2Config:
        lite, given = isinstance(self.encoder, LiteEncoderConfig), len(self.backbone.channels)
        if lite and given != 1:
            raise ValueError(f"encoder.kind lite takes one level, the backbone gives {given}")
        if isinstance(self.encoder, WholeEncoderConfig) and self.encoder.channels % self.encoder.heads:
            raise ValueError(
                f"encoder.channels {self.encoder.channels} can't be shared among {self.encoder.heads} heads"
            )
        levels = given + lite
        if levels != len(self.decoder.points):
            raise ValueError(f"decoder.points is for {len(self.decoder.points)} levels, the encoder gives {levels}")
        return self


class DEIMv2Network(SelectingNetwork):
    def __init__(self, config: DEIMv2Config, classes: Classes) -> None:
        super().__init__(config, classes)
        channels, encoder = config.decoder.channels, config.encoder
        self.encoder = (
            LiteEncoder(encoder, config.backbone.channels)
            if isinstance(encoder, LiteEncoderConfig)
            else HybridEncoder(encoder, config.backbone.channels)
        )
        self.projections = nn.ModuleList(
            ConvNorm(encoder.channels, channels) if encoder.channels != channels else nn.Identity()
            for _ in config.decoder.points
        )
        self.queries = QuerySelection(channels, self.num_slots, nn.SiLU(), embedded=False)
        self.denoising = self._denoising(turned=True)
        self.decoder = FineGrainedDecoder(
            config.decoder,
            self.num_slots,
            layer=lambda: _layer(config),
            position_head=MLP(4, channels, channels, 3, nn.SiLU()),
            activation=nn.SiLU,
            position_once=True,
            shared_box_head=config.shared_boxes,
        )
        self._initialise()

    def projecting(self) -> list[nn.Module]:
        return [module for module in self.encoder.modules() if isinstance(module, PooledConv)]

    def _initialise(self) -> None:
        """The official start. What isn't named here starts as PyTorch does it."""
        spread(self.projections)
        start_scores([self.queries.score_head])
        start_at_zero([self.queries.box_head])
        self.decoder.initialise()


def _layer(config: DEIMv2Config) -> DeformableDecoderLayer:
    decoder = config.decoder
    return DeformableDecoderLayer(
        decoder.channels,
        decoder.heads,
        decoder.hidden,
        decoder.points,
        method=decoder.sampling,
        clamp=LARGEST_HALF,
        projected=False,
        gated=config.gated,
        norm=lambda channels: PreciseRMSNorm(channels, eps=_LEAST),
        feed_forward=SwiGLU,
    )


class PreciseRMSNorm(nn.RMSNorm):
    """Computed in float32 at least, as officially: autocast leaves its input in 16 bits."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(precise(x)).to(x.dtype)
