"""RT-DETR (Zhao et al. 2024) and RT-DETRv2 (Lv et al. 2024).

Version 2 has the same forward; it allows another number of points per level and discrete sampling, starts some
weights differently, and does without a clamp.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from detr.backbones import BackboneConfig, build_backbone
from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import Config
from detr.image import InputConfig
from detr.layers.conv import ConvNorm
from detr.layers.deformable import DeformableDecoderLayer, Method
from detr.layers.position import inverse_sigmoid, precise
from detr.layers.transformer import MLP, FeedForward
from detr.models.denoising import ContrastiveDenoising
from detr.models.hybrid_encoder import HybridEncoder, HybridEncoderConfig
from detr.models.network import DetectionNetwork, Slots
from detr.models.queries import Memory, QuerySelection
from detr.records import Denoising, Output, Predictions, Target

_LARGEST_HALF = 65504.0


class DecoderConfig(Config):
    channels: int = Field(default=256, ge=8)
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=1024, ge=1)  # of the feed-forward parts
    num_layers: int = Field(default=6, ge=1)
    eval_layers: int | None = Field(default=None, ge=1)  # how many of them run in evaluation; None: all
    points: tuple[int, int, int] = (4, 4, 4)  # per head on each level, fine to coarse
    sampling: Method = "bilinear"


class RTDETRConfig(Config):
    arch: Literal["rtdetr"] = "rtdetr"
    version: Literal[1, 2] = 1
    slots: Slots = "index"
    num_queries: int = Field(default=300, ge=1)
    num_denoising: int = Field(default=100, ge=0)  # positive denoising queries per image in training, about
    label_noise: float = Field(default=0.5, ge=0, le=1)
    box_noise: float = Field(default=1.0, ge=0)
    backbone: BackboneConfig = ResNetConfig()
    encoder: HybridEncoderConfig = HybridEncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    input: InputConfig = InputConfig()

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


class RTDETRNetwork(DetectionNetwork):
    denoising: ContrastiveDenoising | None

    def __init__(self, config: RTDETRConfig, classes: Classes) -> None:
        super().__init__(config, classes)
        channels, num_classes = config.decoder.channels, self.num_slots
        self.backbone = build_backbone(config.backbone)
        self.encoder = HybridEncoder(config.encoder, config.backbone.channels)
        self.projections = nn.ModuleList(ConvNorm(config.encoder.channels, channels) for _ in config.backbone.channels)
        self.queries = QuerySelection(channels, num_classes)
        self.denoising = None
        if config.num_denoising > 0:
            self.denoising = ContrastiveDenoising(
                channels,
                num_classes,
                num_denoising=config.num_denoising,
                label_noise=config.label_noise,
                box_noise=config.box_noise,
            )
        self.decoder = RefiningDecoder(
            config.decoder, num_classes, clamp=_LARGEST_HALF if config.version == 1 else None
        )
        self._initialise()

    def forward(self, images: Tensor, padding: Tensor | None = None, targets: list[Target] | None = None) -> Output:
        features = self.backbone(images)
        maps = self.encoder(features, _shrunk(padding, features[-1]))
        memory = self._memory(maps, padding)
        queries = self.queries(memory, self.config.num_queries)
        if not self.training:
            return Output((self.decoder(queries.content, queries.boxes, memory)[-1],))

        content, boxes, mask, noised = queries.content, queries.boxes, None, None
        if self.denoising is not None:
            extra = self.denoising(targets or (), num_matching=content.shape[1])
            if extra is None:
                content = content + self.denoising.unused()
            else:
                noised_content, noised_boxes, mask, noised = extra
                content = torch.cat([noised_content.to(content.dtype), content], 1)
                boxes = torch.cat([noised_boxes.to(boxes.dtype), boxes], 1)
        layers = self.decoder(content, boxes, memory, mask)
        if noised is None:
            return Output(layers, queries.proposals)
        first = noised.labels.shape[1]
        return Output(
            tuple(Predictions(each.logits[:, first:], each.boxes[:, first:]) for each in layers),
            queries.proposals,
            Denoising(
                tuple(Predictions(each.logits[:, :first], each.boxes[:, :first]) for each in layers),
                noised.queries,
                noised.targets,
                noised.num_groups,
            ),
        )

    def heads(self) -> list[nn.Module]:
        queries, decoder = self.queries, self.decoder
        heads: list[nn.Module] = [queries.score_head, queries.box_head, decoder.score_heads, decoder.box_heads]
        return heads if self.denoising is None else [*heads, self.denoising]

    def by_class(self) -> list[nn.Module]:
        modules: list[nn.Module] = [self.queries.score_head, *self.decoder.score_heads]
        return modules if self.denoising is None else [*modules, self.denoising.class_embedding]

    def projecting(self) -> list[nn.Module]:
        return [self.encoder.projections, self.queries]

    def cut(self) -> None:
        self.denoising = None
        self.decoder.cut()

    def _memory(self, maps: list[Tensor], padding: Tensor | None) -> Memory:
        maps = [project(each) for project, each in zip(self.projections, maps, strict=True)]
        tokens = torch.cat([each.flatten(2) for each in maps], 2).transpose(1, 2)
        shapes = tuple((each.shape[2], each.shape[3]) for each in maps)
        if padding is None:
            return Memory(tokens, shapes)
        levels = [mask.flatten(1) for each in maps if (mask := _shrunk(padding, each)) is not None]
        return Memory(tokens, shapes, torch.cat(levels, 1))

    @torch.no_grad()
    def _initialise(self) -> None:
        """The official start. What isn't named here starts as PyTorch does it."""
        spread: list[nn.Module] = [self.queries.embed, *self.decoder.position_head.layers]
        if self.config.version == 2:
            spread += [projection.conv for projection in self.projections if isinstance(projection, ConvNorm)]
            forward = [module for module in self.decoder.modules() if isinstance(module, FeedForward)]
            spread += [linear for each in forward for linear in (each.linear1, each.linear2)]
        for module in spread:
            assert isinstance(module, nn.Linear | nn.Conv2d)
            nn.init.xavier_uniform_(module.weight)
        for scores in (self.queries.score_head, *self.decoder.score_heads):
            nn.init.constant_(scores.bias, -math.log(99))  # every class starts with probability 0.01
        for boxes in (self.queries.box_head, *self.decoder.box_heads):
            nn.init.zeros_(boxes.layers[-1].weight)
            nn.init.zeros_(boxes.layers[-1].bias)


class RefiningDecoder(nn.Module):
    """Each layer moves the boxes of the layer before (Zhu et al. 2021), looking forward twice (Zhang et al. 2023)."""

    def __init__(self, config: DecoderConfig, num_classes: int, *, clamp: float | None) -> None:
        super().__init__()
        channels = config.channels
        self.eval_layers = config.eval_layers or config.num_layers
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(
                channels, config.heads, config.hidden, config.points, method=config.sampling, clamp=clamp
            )
            for _ in range(config.num_layers)
        )
        self.position_head = MLP(4, 2 * channels, channels, 2)
        self.score_heads = nn.ModuleList(nn.Linear(channels, num_classes) for _ in range(config.num_layers))
        self.box_heads = nn.ModuleList(MLP(channels, channels, 4, 3) for _ in range(config.num_layers))

    def forward(self, x: Tensor, boxes: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[Predictions, ...]:
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
        return tuple(predictions)

    def cut(self) -> None:
        """Forget the layers that evaluation doesn't run."""
        for parts in (self.layers, self.score_heads, self.box_heads):
            del parts[self.eval_layers :]


def _shrunk(padding: Tensor | None, like: Tensor) -> Tensor | None:
    """[B, H, W] -> [B, h, w] of the map `like`"""
    if padding is None:
        return None
    return F.interpolate(padding[:, None].float(), size=like.shape[-2:], mode="nearest")[:, 0].bool()
