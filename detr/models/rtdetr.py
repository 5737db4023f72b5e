"""RT-DETR (Zhao et al. 2024) and RT-DETRv2 (Lv et al. 2024).

Version 2 has the same forward; it allows another number of points per level and discrete sampling, starts some
weights differently, and does without a clamp. DEIM (Huang et al. 2025) trains it with another activation and a deeper
position head.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from detr.backbones import BackboneConfig
from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import Config
from detr.layers.conv import ConvNorm
from detr.layers.deformable import LARGEST_HALF, DeformableDecoderLayer, Method
from detr.layers.position import inverse_sigmoid, precise
from detr.layers.transformer import ACTIVATIONS, MLP, Activation, FeedForward
from detr.models.hybrid_encoder import HybridEncoder, HybridEncoderConfig
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.queries import Memory, QuerySelection
from detr.models.selecting_network import SelectingConfig, SelectingNetwork
from detr.records import Predictions


class DecoderConfig(Config):
    channels: int = Field(default=256, ge=8)
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=1024, ge=1)  # of the feed-forward parts
    num_layers: int = Field(default=6, ge=1)
    eval_layers: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all
    points: tuple[int, int, int] = (4, 4, 4)  # per head on each level, fine to coarse
    sampling: Method = "bilinear"
    activation: Activation = "relu"  # of the layers and heads
    position_layers: Literal[2, 3] = 2  # of the head that turns boxes into positions


class RTDETRConfig(SelectingConfig):
    arch: Literal["rtdetr"] = "rtdetr"
    version: Literal[1, 2] = 1
    turned_noise: bool = False  # noised boxes that turned inside out are turned back: see `ContrastiveDenoising`
    backbone: BackboneConfig = ResNetConfig()
    encoder: HybridEncoderConfig = HybridEncoderConfig()
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def _fits(self) -> RTDETRConfig:
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            if part.channels % part.heads:
                raise ValueError(f"{name}.channels {part.channels} can't be shared among {part.heads} heads")
        if (self.decoder.eval_layers or 0) > self.decoder.num_layers:
            raise ValueError(f"decoder.eval_layers is more than the {self.decoder.num_layers} layers there are")
        if min(self.decoder.points) < 1:
            raise ValueError("decoder.points: every level needs at least one point")
        return self


class RTDETRNetwork(SelectingNetwork):
    def __init__(self, config: RTDETRConfig, classes: Classes) -> None:
        super().__init__(config, classes)
        channels = config.decoder.channels
        self.encoder = HybridEncoder(config.encoder, config.backbone.channels)
        self.projections = nn.ModuleList(ConvNorm(config.encoder.channels, channels) for _ in config.backbone.channels)
        self.queries = QuerySelection(channels, self.num_slots, ACTIVATIONS[config.decoder.activation]())
        self.denoising = self._denoising(turned=config.turned_noise)
        self.decoder = RefiningDecoder(
            config.decoder, self.num_slots, clamp=LARGEST_HALF if config.version == 1 else None
        )
        self._initialise()

    def _initialise(self) -> None:
        """The official start. What isn't named here starts as PyTorch does it."""
        spread([self.queries.embed, *self.decoder.position_head.layers[:2]])
        if self.config.version == 2:
            spread([*self.projections, *(each.feed_forward for each in self.decoder.layers)])
        start_scores([self.queries.score_head, *self.decoder.score_heads])
        start_at_zero([self.queries.box_head, *self.decoder.box_heads])


class RefiningDecoder(nn.Module):
    """Each layer moves the boxes of the layer before (Zhu et al. 2021), looking forward twice (Zhang et al. 2023)."""

    def __init__(self, config: DecoderConfig, num_classes: int, *, clamp: float | None) -> None:
        super().__init__()
        channels, activation = config.channels, ACTIVATIONS[config.activation]
        self.eval_layers = config.eval_layers or config.num_layers
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(
                channels,
                config.heads,
                config.hidden,
                config.points,
                method=config.sampling,
                clamp=clamp,
                feed_forward=lambda channels, hidden: FeedForward(channels, hidden, activation()),
            )
            for _ in range(config.num_layers)
        )
        wide = 2 * channels if config.position_layers == 2 else channels
        self.position_head = MLP(4, wide, channels, config.position_layers, activation())
        self.score_heads = nn.ModuleList(nn.Linear(channels, num_classes) for _ in range(config.num_layers))
        self.box_heads = nn.ModuleList(MLP(channels, channels, 4, 3, activation()) for _ in range(config.num_layers))

    def forward(
        self, x: Tensor, boxes: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[tuple[Predictions, ...], None]:
        """x [B, Q, D], boxes [B, Q, 4] logits, mask [Q, Q] -> one `Predictions` per layer; in evaluation only the last.

        A layer's box starts from the layer before it with gradient in what is given out, so a loss teaches two
        layers, and without gradient in what the next layer sees.
        """
        num_layers = len(self.layers) if self.training else self.eval_layers
        reference = boxes.sigmoid()
        before: Tensor | None = None
        predictions = []
        for index in range(num_layers):
            position = self.position_head(reference.to(x.dtype))
            x = self.layers[index](
                x, position, reference, memory.tokens, memory.shapes, padding=memory.padding, mask=mask
            )
            step = precise(self.box_heads[index](x))
            refined = (step + inverse_sigmoid(reference)).sigmoid()
            if self.training:
                given = refined if before is None else (step + inverse_sigmoid(before)).sigmoid()
                predictions.append(Predictions(self.score_heads[index](x), given))
            elif index == num_layers - 1:
                predictions.append(Predictions(self.score_heads[index](x), refined))
            before, reference = refined, refined.detach()
        return tuple(predictions), None

    def heads(self) -> list[nn.Module]:
        """Whatever says classes and boxes."""
        return [self.score_heads, self.box_heads]

    def cut(self) -> None:
        """Forget the layers that evaluation doesn't run."""
        for parts in (self.layers, self.score_heads, self.box_heads):
            del parts[self.eval_layers :]
