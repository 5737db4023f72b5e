"""What a state dict says about the model it belongs to: enough to tell the presets apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from detr.backbones.resnet import BLOCKS
from detr.models.presets import ModelConfig, models, preset


@dataclass(frozen=True)
class Structure:
    """Counts and widths that show in names and shapes. None: the names don't show it."""

    backbone_blocks: tuple[int, ...]
    bottlenecks: bool
    backbone_width: int
    encoder_layers: int
    encoder_channels: int
    fusion_channels: int
    fusion_blocks: int
    decoder_layers: int
    decoder_channels: int
    decoder_hidden: int
    sampled_points: int  # of all heads and levels

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(self).items())


def structure_of(config: ModelConfig) -> Structure:
    encoder, decoder = config.encoder, config.decoder
    return Structure(
        backbone_blocks=BLOCKS[config.backbone.depth],
        bottlenecks=config.backbone.depth >= 50,
        backbone_width=config.backbone.width,
        encoder_layers=encoder.num_layers,
        encoder_channels=encoder.channels,
        fusion_channels=int(encoder.channels * encoder.expansion),
        fusion_blocks=round(3 * encoder.depth),
        decoder_layers=decoder.num_layers,
        decoder_channels=decoder.channels,
        decoder_hidden=decoder.hidden,
        sampled_points=decoder.heads * sum(decoder.points),
    )


def seen_in(state: Mapping[str, Tensor]) -> Structure | None:
    """From a state dict under our names; None where it is not a whole RT-DETR."""
    try:
        return Structure(
            backbone_blocks=tuple(_count(state, f"backbone.stages.{stage}.") for stage in range(4)),
            bottlenecks="backbone.stages.0.0.conv3.conv.weight" in state,
            backbone_width=len(state["backbone.stem.2.conv.weight"]),
            encoder_layers=_count(state, "encoder.attention."),
            encoder_channels=len(state["encoder.projections.0.conv.weight"]),
            fusion_channels=len(state["encoder.top_down.0.main.conv.weight"]),
            fusion_blocks=_count(state, "encoder.top_down.0.blocks."),
            decoder_layers=_count(state, "decoder.layers."),
            decoder_channels=len(state["queries.embed.weight"]),
            decoder_hidden=len(state["decoder.layers.0.feed_forward.linear1.weight"]),
            sampled_points=len(state["decoder.layers.0.cross_attention.weights.weight"]),
        )
    except (KeyError, TypeError):
        return None


def presets_like(structure: Structure, version: int | None) -> list[str]:
    """The presets of that structure; bilinear sampling before discrete, which doesn't show in a file."""
    fitting = [name for name in models() if structure_of(preset(name)) == structure]
    fitting = [name for name in fitting if version in (None, preset(name).version)]
    return sorted(fitting, key=lambda name: preset(name).decoder.sampling != "bilinear")


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
