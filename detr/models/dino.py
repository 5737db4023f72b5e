"""DINO (Zhang et al. 2023): learned content on selected boxes, contrastive denoising, looking forward twice."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from detr.backbones import BackboneConfig, build_backbone
from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import Config
from detr.image import DETR_INPUT, InputConfig
from detr.layers.position import inverse_sigmoid, precise, sine_of_boxes
from detr.layers.transformer import MLP
from detr.layers.valid_area import on_levels, valid_ratios
from detr.models import deformable_detr
from detr.models.deformable_detr import check_parts, decoder_layers
from detr.models.deformable_encoder import DeformableEncoder, DeformableEncoderConfig
from detr.models.denoising import ContrastiveDenoising
from detr.models.initial_weights import spread, start_at_zero, start_scores
from detr.models.learned_queries import LearnedQueriesNetwork
from detr.models.network import Slots
from detr.models.proposals import ProposalSelection
from detr.models.queries import Memory
from detr.models.training_queries import training_queries
from detr.records import Output, Predictions, Target

_EPS = 1e-3  # of the logits of boxes


class EncoderConfig(DeformableEncoderConfig):
    hidden: int = Field(default=2048, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    temperature: float = Field(default=20, gt=0)
    position_offset: float = 0.0


class DecoderConfig(deformable_detr.DecoderConfig):
    hidden: int = Field(default=2048, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DINOConfig(Config):
    arch: Literal["dino"] = "dino"
    slots: Slots = "index"
    num_queries: int = Field(default=900, ge=1)
    eval_queries: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all
    num_denoising: int = Field(default=100, ge=0)  # positive denoising queries per image in training, about
    label_noise: float = Field(default=0.5, ge=0, le=1)
    box_noise: float = Field(default=1.0, ge=0)
    backbone: BackboneConfig = ResNetConfig(variant="b", frozen_norms=True, frozen_stages=2)
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    input: InputConfig = DETR_INPUT

    @model_validator(mode="after")
    def _fits(self) -> DINOConfig:
        check_parts(self)
        return self


class DINONetwork(LearnedQueriesNetwork):
    denoising: ContrastiveDenoising | None

    def __init__(self, config: DINOConfig, classes: Classes) -> None:
        super().__init__(config, classes)
        channels = config.encoder.channels
        self.backbone = build_backbone(config.backbone, image_channels=config.input.channels)
        self.encoder = DeformableEncoder(config.encoder, config.backbone.channels)
        self.queries = ProposalSelection(channels, self.num_slots, ranked_by="best slot")
        self.content = nn.Parameter(torch.empty(config.num_queries, channels))  # of the best proposal, the next, ...
        nn.init.xavier_uniform_(self.content)
        self.denoising = None
        if config.num_denoising > 0:
            self.denoising = ContrastiveDenoising(
                channels,
                self.num_slots,
                num_denoising=config.num_denoising,
                label_noise=config.label_noise,
                box_noise=config.box_noise,
                filled=True,
                slots=self.slots,
                eps=_EPS,
            )
        self.decoder = LookForwardTwiceDecoder(config, self.num_slots)

    def forward(self, images: Tensor, padding: Tensor | None = None, targets: list[Target] | None = None) -> Output:
        memory = self.encoder(self.backbone(images), padding)
        chosen = self.queries(memory, self.num_running).chosen
        boxes = chosen.boxes.detach()
        content = self.content[: boxes.shape[1]].expand(boxes.shape[0], -1, -1)
        if not self.training:
            return Output(self.decoder(content, boxes, memory))
        queries = training_queries(content, boxes, self.denoising, targets)
        layers = self.decoder(queries.content, queries.boxes, memory, queries.mask)
        return queries.output(layers, Predictions(chosen.logits, chosen.boxes.sigmoid()))

    def heads(self) -> list[nn.Module]:
        queries, decoder = self.queries, self.decoder
        heads: list[nn.Module] = [queries.score_head, queries.box_head, decoder.score_head, decoder.box_head]
        return heads if self.denoising is None else [*heads, self.denoising]

    def by_class(self) -> list[nn.Module]:
        modules: list[nn.Module] = [self.queries.score_head, self.decoder.score_head]
        return modules if self.denoising is None else [*modules, self.denoising.class_embedding]

    def projecting(self) -> list[nn.Module]:
        return [self.encoder.projections]

    def cut(self) -> None:
        self.denoising = None
        self.decoder.cut()


class LookForwardTwiceDecoder(nn.Module):
    """Each layer moves the boxes of the layer before, and its loss teaches both; one pair of heads reads all layers."""

    def __init__(self, config: DINOConfig, num_slots: int) -> None:
        super().__init__()
        channels, decoder = config.encoder.channels, config.decoder
        self.eval_layers = decoder.eval_layers or decoder.num_layers
        self.layers = decoder_layers(decoder, channels, config.encoder.levels)
        self.norm = nn.LayerNorm(channels)
        self.position_head = MLP(2 * channels, channels, channels, 2)
        self.score_head = nn.Linear(channels, num_slots)
        self.box_head = MLP(channels, channels, 4, 3)
        spread([self.position_head])
        start_scores([self.score_head])
        start_at_zero([self.box_head])

    def forward(self, x: Tensor, boxes: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[Predictions, ...]:
        """x [B, Q, D], boxes [B, Q, 4] logits, mask [Q, Q] -> one `Predictions` per layer; in evaluation only the last.

        What a layer sees are the boxes of the layer before without gradient, moved by what its own output says; what is
        given out starts from them with gradient, moved by what the norm of that output says.
        """
        num_layers = len(self.layers) if self.training else self.eval_layers
        ratios = valid_ratios(memory.padding, memory.shapes)
        before = reference = boxes.sigmoid()
        predictions = []
        for index, layer in enumerate(self.layers[:num_layers]):
            places = on_levels(reference, ratios)
            x = layer(
                x, self._position(places, x), places, memory.tokens, memory.shapes, padding=memory.padding, mask=mask
            )
            if self.training or index == num_layers - 1:
                normed = self.norm(x)
                predictions.append(Predictions(self.score_head(normed), self._moved(before, normed)))
            if index < num_layers - 1:
                before = self._moved(reference, x)
                reference = before.detach()
        return tuple(predictions)

    def _moved(self, boxes: Tensor, x: Tensor) -> Tensor:
        return (precise(self.box_head(x)) + inverse_sigmoid(boxes, _EPS)).sigmoid()

    def _position(self, places: Tensor, x: Tensor) -> Tensor:
        """Of the boxes as shares of the finest level's frame; y before x, as officially"""
        finest = places if places.dim() == 3 else places[:, :, 0]
        x_, y_, sides = finest.split((1, 1, 2), -1)  # an index would be a copy to the device, in each layer
        waves = sine_of_boxes(torch.cat([y_, x_, sides], -1), x.shape[-1] // 2)
        return self.position_head(waves.to(x.dtype))

    def cut(self) -> None:
        """Forget the layers that evaluation doesn't run."""
        del self.layers[self.eval_layers :]
