"""The official names of RT-DETR, RT-DETRv2 (also as DEIM trains it) and their ResNet-vd."""

from __future__ import annotations

from detr.convert import hgnetv2
from detr.convert.fusion import Rows, repvgg
from detr.convert.renaming import Row, Table
from detr.convert.transformer_layers import layer

_BACKBONE: tuple[tuple[str, str], ...] = (
    ("backbone.conv1.conv1_1.*", "backbone.stem.0.*"),
    ("backbone.conv1.conv1_2.*", "backbone.stem.1.*"),
    ("backbone.conv1.conv1_3.*", "backbone.stem.2.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.branch2a.*", "backbone.stages.{stage}.{block}.conv1.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.branch2b.*", "backbone.stages.{stage}.{block}.conv2.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.branch2c.*", "backbone.stages.{stage}.{block}.conv3.*"),
    ("backbone.res_layers.0.blocks.{block}.short.*", "backbone.stages.0.{block}.shortcut.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.short.conv.*", "backbone.stages.{stage}.{block}.shortcut.*"),
)


def csp(theirs: str, ours: str) -> Rows:
    """A `CSPBlock`."""
    return (
        (f"{theirs}.conv1.*", f"{ours}.main.*"),
        (f"{theirs}.conv2.*", f"{ours}.side.*"),
        (f"{theirs}.conv3.*", f"{ours}.out.*"),
        *repvgg(theirs, ours),
    )


ATTENTION = layer("encoder.encoder.0.layers.{layer}", "encoder.attention.{layer}")
"""Of the hybrid encoder."""

_ENCODER: tuple[Row, ...] = (
    *ATTENTION,
    ("encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
    ("encoder.downsample_convs.{step}.*", "encoder.downsamples.{step}.*"),
    *csp("encoder.fpn_blocks.{step}", "encoder.top_down.{step}"),
    *csp("encoder.pan_blocks.{step}", "encoder.bottom_up.{step}"),
)

_CROSS = "decoder.decoder.layers.{layer}.cross_attn"
DECODER: tuple[Row, ...] = (
    *layer("decoder.decoder.layers.{layer}", "decoder.layers.{layer}"),
    (f"{_CROSS}.sampling_offsets.*", "decoder.layers.{layer}.cross_attention.offsets.*"),
    (f"{_CROSS}.attention_weights.*", "decoder.layers.{layer}.cross_attention.weights.*"),
    ("decoder.input_proj.{level}.*", "projections.{level}.*"),
    ("decoder.denoising_class_embed.*", "denoising.class_embedding.*"),
    ("decoder.query_pos_head.*", "decoder.position_head.*"),
    ("decoder.enc_score_head.*", "queries.score_head.*"),
    ("decoder.enc_bbox_head.*", "queries.box_head.*"),
    ("decoder.dec_score_head.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("decoder.dec_bbox_head.{layer}.*", "decoder.box_heads.{layer}.*"),
)
"""Of all models with queries selected from a hybrid encoder."""

_PROJECTED: tuple[Row, ...] = (
    (f"{_CROSS}.value_proj.*", "decoder.layers.{layer}.cross_attention.project_value.*"),
    (f"{_CROSS}.output_proj.*", "decoder.layers.{layer}.cross_attention.project_out.*"),
)

NAMED: tuple[Row, ...] = (
    ("encoder.input_proj.{level}.*", "encoder.projections.{level}.*"),
    ("decoder.enc_output.proj.*", "queries.embed.*"),
    ("decoder.enc_output.norm.*", "queries.norm.*"),
)
"""What version 1 has numbers for has names since version 2."""

DERIVED = ("decoder.anchors", "decoder.valid_mask", f"{_CROSS}.num_points_scale")
"""Buffers since version 2."""

_FUSED = (
    "encoder.fpn_blocks.{step}.bottlenecks.{block}.conv.*",
    "encoder.pan_blocks.{step}.bottlenecks.{block}.conv.*",
)

TABLES: dict[str, Table] = {
    "rtdetr-official": Table(
        rows=(
            *_BACKBONE,
            *hgnetv2.ROWS_OF_RTDETR,
            *_ENCODER,
            ("encoder.input_proj.{level}.0.*", "encoder.projections.{level}.conv.*"),
            ("encoder.input_proj.{level}.1.*", "encoder.projections.{level}.norm.*"),
            *DECODER,
            *_PROJECTED,
            ("decoder.enc_output.0.*", "queries.embed.*"),
            ("decoder.enc_output.1.*", "queries.norm.*"),
        ),
        marks=("decoder.enc_output.0.*", "decoder.decoder.layers.{layer}.cross_attn.value_proj.*"),
        arch="rtdetr",
        fields=(("version", 1),),
        derived=_FUSED,
    ),
    "rtdetrv2-official": Table(
        rows=(
            *_BACKBONE,
            *hgnetv2.ROWS_OF_RTDETR,
            *_ENCODER,
            *DECODER,
            *_PROJECTED,
            *NAMED,
        ),
        marks=("decoder.enc_output.proj.*", "decoder.decoder.layers.{layer}.cross_attn.value_proj.*"),
        arch="rtdetr",
        fields=(("version", 2),),
        foreign=("decoder.pre_bbox_head.*",),
        derived=(*DERIVED, *_FUSED),
    ),
    "resnet-vd-official": Table(
        rows=tuple((theirs.removeprefix("backbone."), ours) for theirs, ours in _BACKBONE),
        marks=("conv1.conv1_1.*", "res_layers.{stage}.blocks.{block}.branch2a.*"),
    ),
}
