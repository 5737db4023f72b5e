"""What RT-DETR, D-FINE and DEIMv2 do alike: one sentence, whatever the parts are made of."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from detr.backbones import build_backbone
from detr.classes import Classes
from detr.config import Config
from detr.image import InputConfig, StretchedInput
from detr.layers.position import shrunk
from detr.models.denoising import ContrastiveDenoising
from detr.models.network import DetectionNetwork, Slots
from detr.models.queries import QuerySelection, memory_of
from detr.models.training_queries import training_queries
from detr.records import Output, Target


class SelectingConfig(Config):
    slots: Slots = "index"
    num_queries: int = Field(default=300, ge=1)
    num_denoising: int = Field(default=100, ge=0)  # positive denoising queries per image in training, about
    label_noise: float = Field(default=0.5, ge=0, le=1)
    box_noise: float = Field(default=1.0, ge=0)
    input: StretchedInput = InputConfig()


class SelectingNetwork(DetectionNetwork):
    """Maps of the backbone, mixed and projected; the best of their positions become queries that the decoder refines.

    Who inherits makes the parts that are only declared here.
    """

    encoder: Any  # maps of the backbone, padding -> maps; with `projections`
    projections: nn.ModuleList
    queries: QuerySelection
    denoising: ContrastiveDenoising | None

    def __init__(self, config: Any, classes: Classes) -> None:
        super().__init__(config, classes)
        self.backbone = build_backbone(config.backbone, image_channels=config.input.channels)

    def _denoising(self, *, turned: bool) -> ContrastiveDenoising | None:
        """As the settings say; `turned` as in `ContrastiveDenoising`."""
        if self.config.num_denoising == 0:
            return None
        return ContrastiveDenoising(
            self.config.decoder.channels,
            self.num_slots,
            num_denoising=self.config.num_denoising,
            label_noise=self.config.label_noise,
            box_noise=self.config.box_noise,
            turned=turned,
        )

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
        self.fewest_layers = self.decoder.eval_layers
