"""The hybrid encoder of RT-DETR (Zhao et al. 2024, section 4.2).

Attention within the coarsest level only (AIFI), then convolutions across levels, down and up again (CCFM). D-FINE
(Peng et al. 2024) and DEIMv2 (Huang et al. 2025) fuse with other blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from detr.config import Config
from detr.layers.attention import may_look
from detr.layers.conv import ConvNorm
from detr.layers.fusion import CSPBlock, ELANBlock, Entry, JointCSPBlock, LeanDownsample
from detr.layers.merging import MergingConv, enlarged
from detr.layers.position import sine_table
from detr.layers.timm import ChannelAttention, channel_attention
from detr.layers.transformer import EncoderLayer

Fusion = Literal["csp", "elan", "elan-joint", "elan-short"]
Merge = Literal["concatenate", "sum"]
Project = Literal["always", "unequal"]


class HybridEncoderConfig(Config):
    channels: int = Field(default=256, ge=8, multiple_of=4)
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=1024, ge=1)  # of the feed-forward part of the attention layers
    num_layers: int = Field(default=1, ge=0)  # attention layers on the coarsest level
    fusion: Fusion = "csp"  # RT-DETR's blocks; D-FINE's; DEIMv2's, and those of its larger sizes
    merge: Merge = "concatenate"  # how two maps become the input of a fusion block
    project: Project = "always"  # maps that have `channels` already too, or not
    expansion: float = Field(default=1.0, gt=0)  # width of the fusion blocks
    depth: float = Field(default=1.0, ge=0)  # times three convolutions in each fusion block
    channel_attention: ChannelAttention = "none"  # after each fusion block; timm's


class HybridEncoder(nn.Module):
    """Maps, fine to coarse, of the backbone's channels -> maps of the same sizes with `config.channels`."""

    def __init__(self, config: HybridEncoderConfig, channels_in: Sequence[int]) -> None:
        super().__init__()
        channels, steps = config.channels, len(channels_in) - 1
        self.projections = nn.ModuleList(
            ConvNorm(each, channels) if config.project == "always" or each != channels else nn.Identity()
            for each in channels_in
        )
        self.attention = nn.ModuleList(
            EncoderLayer(channels, config.heads, config.hidden, nn.GELU()) for _ in range(config.num_layers)
        )
        self.concatenate = config.merge == "concatenate"
        self.laterals = nn.ModuleList(_lateral(config) for _ in range(steps))
        self.top_down = nn.ModuleList(fusion_block(config) for _ in range(steps))
        self.downsamples = nn.ModuleList(_downsample(config) for _ in range(steps))
        self.bottom_up = nn.ModuleList(fusion_block(config) for _ in range(steps))

    def forward(self, features: Sequence[Tensor], padding: Tensor | None = None) -> list[Tensor]:
        """padding [B, h, w] of the coarsest level, or None."""
        maps = [project(each) for project, each in zip(self.projections, features, strict=True)]
        maps[-1] = self._attend(maps[-1], padding)
        return self._fuse(maps)

    def _attend(self, x: Tensor, padding: Tensor | None) -> Tensor:
        height, width = x.shape[-2:]
        position = sine_table(height, width, x.shape[1], like=x)
        mask = None if padding is None else may_look(padding.flatten(1))
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.attention:
            tokens = layer(tokens, position, mask)
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def _fuse(self, maps: list[Tensor]) -> list[Tensor]:
        coarse = maps[-1]
        descended = []
        for finer, lateral, block in zip(reversed(maps[:-1]), self.laterals, self.top_down, strict=True):
            coarse = lateral(coarse)
            descended.append(coarse)
            coarse = block(self._merged(coarse, finer))
        result = [coarse]
        for lateral_map, downsample, block in zip(reversed(descended), self.downsamples, self.bottom_up, strict=True):
            result.append(block(self._merged(downsample(result[-1]), lateral_map)))
        return result

    def _merged(self, coarse: Tensor, fine: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """What a fusion block takes: two maps, or their sum."""
        return (coarse, fine) if self.concatenate else enlarged(coarse, like=fine) + fine

    def rearrange(self) -> None:
        """Where maps of two sizes are merged, convolve each before; a projection that this makes needless goes."""
        for level, block in enumerate(reversed(self.top_down)):
            entries = [module for module in block.modules() if isinstance(module, MergingConv)]
            projection = self.projections[level] if _is_cheaper_within(self.projections[level], entries) else None
            for entry in entries:
                entry.take_apart(projection)
            if projection is not None:
                self.projections[level] = nn.Identity()


def _is_cheaper_within(projection: nn.Module, entries: Sequence[MergingConv]) -> bool:
    """Whether convolutions that hold the projection too multiply less than both do."""
    if not entries or not isinstance(projection, ConvNorm):
        return False
    inner, given = projection.conv.weight.shape[:2]
    given_out = sum(entry.conv.out_channels for entry in entries)
    return given * given_out < given * inner + inner * given_out


def fusion_block(config: HybridEncoderConfig) -> nn.Module:
    """What makes one map of two that were merged."""
    block = _convolutions(config)
    if config.channel_attention == "none":
        return block
    return nn.Sequential(block, channel_attention(config.channel_attention, config.channels))


def _convolutions(config: HybridEncoderConfig) -> nn.Module:
    channels, num_blocks = config.channels, round(3 * config.depth)
    channels_in: Entry = (channels, channels) if config.merge == "concatenate" else channels
    if config.fusion == "csp":
        return CSPBlock(channels_in, int(channels * config.expansion), channels, num_blocks)
    inner = round(config.expansion * channels // 2)
    if config.fusion == "elan":
        return ELANBlock(channels_in, inner, channels, block=lambda a, b: CSPBlock(a, b, b, num_blocks))
    return ELANBlock(
        channels_in,
        inner,
        channels,
        block=lambda a, b: JointCSPBlock(a, b, num_blocks),
        convolutions=config.fusion == "elan-joint",
    )


def _lateral(config: HybridEncoderConfig) -> nn.Module:
    return ConvNorm(config.channels, config.channels, activation=nn.SiLU() if config.fusion == "csp" else None)


def _downsample(config: HybridEncoderConfig) -> nn.Module:
    if config.fusion == "csp":
        return ConvNorm(config.channels, config.channels, kernel=3, stride=2, activation=nn.SiLU())
    return LeanDownsample(config.channels)
