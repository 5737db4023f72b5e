"""The official names of RT-DETR, RT-DETRv2 and their ResNet-vd."""

from __future__ import annotations

from detr.convert import hgnetv2
from detr.convert.renaming import Row, Table

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


def _fusion(theirs: str, ours: str) -> tuple[Row, ...]:
    return (
        (f"{theirs}.conv1.*", f"{ours}.main.*"),
        (f"{theirs}.conv2.*", f"{ours}.side.*"),
        (f"{theirs}.conv3.*", f"{ours}.out.*"),
        (f"{theirs}.bottlenecks.{{block}}.conv1.*", f"{ours}.blocks.{{block}}.conv3x3.*"),
        (f"{theirs}.bottlenecks.{{block}}.conv2.*", f"{ours}.blocks.{{block}}.conv1x1.*"),
    )


def _self_attention(theirs: str, ours: str) -> tuple[Row, ...]:
    return (
        (f"{theirs}.self_attn.in_proj_weight", f"{ours}.self_attention.project_in.weight"),
        (f"{theirs}.self_attn.in_proj_bias", f"{ours}.self_attention.project_in.bias"),
        (f"{theirs}.self_attn.out_proj.*", f"{ours}.self_attention.project_out.*"),
        (f"{theirs}.linear{{n}}.*", f"{ours}.feed_forward.linear{{n}}.*"),
        (f"{theirs}.norm{{n}}.*", f"{ours}.norm{{n}}.*"),
    )


_ENCODER: tuple[Row, ...] = (
    *_self_attention("encoder.encoder.0.layers.{layer}", "encoder.attention.{layer}"),
    ("encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
    ("encoder.downsample_convs.{step}.*", "encoder.downsamples.{step}.*"),
    *_fusion("encoder.fpn_blocks.{step}", "encoder.top_down.{step}"),
    *_fusion("encoder.pan_blocks.{step}", "encoder.bottom_up.{step}"),
)

_CROSS = "decoder.decoder.layers.{layer}.cross_attn"
_DECODER: tuple[Row, ...] = (
    *_self_attention("decoder.decoder.layers.{layer}", "decoder.layers.{layer}"),
    (f"{_CROSS}.sampling_offsets.*", "decoder.layers.{layer}.cross_attention.offsets.*"),
    (f"{_CROSS}.attention_weights.*", "decoder.layers.{layer}.cross_attention.weights.*"),
    (f"{_CROSS}.value_proj.*", "decoder.layers.{layer}.cross_attention.project_value.*"),
    (f"{_CROSS}.output_proj.*", "decoder.layers.{layer}.cross_attention.project_out.*"),
    ("decoder.input_proj.{level}.*", "projections.{level}.*"),
    ("decoder.denoising_class_embed.*", "denoising.class_embedding.*"),
    ("decoder.query_pos_head.*", "decoder.position_head.*"),
    ("decoder.enc_score_head.*", "queries.score_head.*"),
    ("decoder.enc_bbox_head.*", "queries.box_head.*"),
    ("decoder.dec_score_head.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("decoder.dec_bbox_head.{layer}.*", "decoder.box_heads.{layer}.*"),
)

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
            *_DECODER,
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
            ("encoder.input_proj.{level}.*", "encoder.projections.{level}.*"),
            *_DECODER,
            ("decoder.enc_output.proj.*", "queries.embed.*"),
            ("decoder.enc_output.norm.*", "queries.norm.*"),
        ),
        marks=("decoder.enc_output.proj.*", "decoder.decoder.layers.{layer}.cross_attn.value_proj.*"),
        arch="rtdetr",
        fields=(("version", 2),),
        foreign=("decoder.pre_bbox_head.*", "decoder.query_pos_head.layers.2.*"),
        derived=("decoder.anchors", "decoder.valid_mask", f"{_CROSS}.num_points_scale", *_FUSED),
    ),
    "resnet-vd-official": Table(
        rows=tuple((theirs.removeprefix("backbone."), ours) for theirs, ours in _BACKBONE),
        marks=("conv1.conv1_1.*", "res_layers.{stage}.blocks.{block}.branch2a.*"),
    ),
}
