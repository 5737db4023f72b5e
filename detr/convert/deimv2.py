"""The official names of DEIMv2."""

from __future__ import annotations

from detr.convert import hgnetv2
from detr.convert.dfine import FINE_GRAINED, SECOND_NAMES, SETTINGS
from detr.convert.fusion import elan, joint, lean
from detr.convert.renaming import Row, Table
from detr.convert.rtdetr import ATTENTION, DECODER, DERIVED

_LAYER, _OURS = "decoder.decoder.layers.{layer}", "decoder.layers.{layer}"
_BLOCKS: tuple[Row, ...] = (
    (f"{_LAYER}.norm{{n}}.scale", f"{_OURS}.norm{{n}}.weight"),
    (f"{_LAYER}.gateway.norm.scale", f"{_OURS}.gate.norm.weight"),
    (f"{_LAYER}.swish_ffn.w12.*", f"{_OURS}.feed_forward.project_in.*"),
    (f"{_LAYER}.swish_ffn.w3.*", f"{_OURS}.feed_forward.project_out.*"),
)
_INPUT: Row = ("encoder.input_proj.{level}.*", "encoder.projections.{level}.*")

_HYBRID: tuple[Row, ...] = (
    _INPUT,
    *ATTENTION,
    ("encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
    *lean("encoder.downsample_convs.{step}", "encoder.downsamples.{step}"),
    *elan("encoder.fpn_blocks.{step}", "encoder.top_down.{step}", joint),
    *elan("encoder.pan_blocks.{step}", "encoder.bottom_up.{step}", joint),
)
_LITE: tuple[Row, ...] = (
    _INPUT,
    ("encoder.down_sample1.1.*", "encoder.coarsen.conv.*"),
    ("encoder.down_sample1.2.*", "encoder.coarsen.norm.*"),
    ("encoder.down_sample2.1.*", "encoder.downsample.conv.*"),
    ("encoder.down_sample2.2.*", "encoder.downsample.norm.*"),
    ("encoder.bi_fusion.cv.*", "encoder.spread.*"),
    *elan("encoder.fpn_block", "encoder.top_down", joint),
    *elan("encoder.pan_block", "encoder.bottom_up", joint),
)

TABLES: dict[str, Table] = {
    "deimv2-official": Table(
        rows=(*hgnetv2.ROWS, *_HYBRID, *_BLOCKS, *DECODER, *FINE_GRAINED),
        marks=(f"{_LAYER}.swish_ffn.w12.*", f"{_LAYER}.gateway.*"),
        arch="deimv2",
        fields=(("shared_boxes", False),),
        settings=SETTINGS,
        derived=(*DERIVED, *SECOND_NAMES),
    ),
    "deimv2-lite-official": Table(
        rows=(*hgnetv2.ROWS, *_LITE, *_BLOCKS, *DECODER, *FINE_GRAINED),
        marks=(f"{_LAYER}.swish_ffn.w12.*", "encoder.bi_fusion.cv.*"),
        arch="deimv2",
        fields=(("shared_boxes", True),),
        settings=SETTINGS,
        derived=(*DERIVED, *SECOND_NAMES),
        # One head, which the program keeps for every layer and Hugging Face's files have once.
        aliases=(("decoder.dec_bbox_head.{layer}.*", "decoder.dec_bbox_head.0.*"),),
    ),
}
