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


def _vit(theirs: str) -> tuple[Row, ...]:
    """The transformer under the name `theirs`, and the convolutions beside it."""
    block, ours = f"{theirs}.blocks.{{layer}}", "backbone.stages.{layer}"
    return (
        (f"{theirs}.patch_embed.proj.*", "backbone.stem.*"),
        (f"{theirs}.cls_token", "backbone.class_token"),
        (f"{theirs}.storage_tokens", "backbone.registers"),
        (f"{theirs}.norm.*", "backbone.norm.*"),
        (f"{block}.norm{{n}}.*", f"{ours}.norm{{n}}.*"),
        (f"{block}.attn.qkv.*", f"{ours}.attention.project_in.*"),
        (f"{block}.attn.proj.*", f"{ours}.attention.project_out.*"),
        (f"{block}.ls{{n}}.gamma", f"{ours}.scale{{n}}"),
        (f"{block}.mlp.fc{{n}}.*", f"{ours}.feed_forward.linear{{n}}.*"),
        *(
            ((f"{block}.mlp.w1.{kind}", f"{block}.mlp.w2.{kind}"), f"{ours}.feed_forward.project_in.{kind}")
            for kind in ("weight", "bias")
        ),
        (f"{block}.mlp.w3.*", f"{ours}.feed_forward.project_out.*"),
        *_DETAILS,
    )


_DETAILS: tuple[Row, ...] = (
    ("backbone.sta.stem.0.*", "backbone.details.stem.conv.*"),
    ("backbone.sta.stem.1.*", "backbone.details.stem.norm.*"),
    ("backbone.sta.conv2.0.*", "backbone.details.conv2.conv.*"),
    ("backbone.sta.conv2.1.*", "backbone.details.conv2.norm.*"),
    ("backbone.sta.conv{n}.1.*", "backbone.details.conv{n}.conv.*"),
    ("backbone.sta.conv{n}.2.*", "backbone.details.conv{n}.norm.*"),
    ("backbone.convs.{level}.*", "backbone.projections.{level}.conv.*"),
    ("backbone.norms.{level}.*", "backbone.projections.{level}.norm.*"),
)

TABLES: dict[str, Table] = {
    "deimv2-official": Table(
        rows=(*hgnetv2.ROWS, *_HYBRID, *_BLOCKS, *DECODER, *FINE_GRAINED),
        marks=(f"{_LAYER}.swish_ffn.w12.*", f"{_LAYER}.gateway.*"),
        arch="deimv2",
        fields=(("shared_boxes", False),),
        written_for=(("backbone.kind", "hgnetv2"),),
        foreign=("backbone.dinov3.*",),
        settings=SETTINGS,
        derived=(*DERIVED, *SECOND_NAMES),
    ),
    "deimv2-vit-official": Table(
        rows=(*_vit("backbone.dinov3._model"), *_HYBRID, *_BLOCKS, *DECODER, *FINE_GRAINED),
        marks=(f"{_LAYER}.swish_ffn.w12.*", "backbone.dinov3._model.cls_token"),
        arch="deimv2",
        fields=(("shared_boxes", False),),
        written_for=(("backbone.kind", "vit"), ("backbone.dinov3", False)),
        settings=SETTINGS,
        derived=(*DERIVED, *SECOND_NAMES, "backbone.dinov3._model.rope_embed.periods"),
    ),
    "deimv2-dinov3-official": Table(
        rows=(*_vit("backbone.dinov3"), *_HYBRID, *_BLOCKS, *DECODER, *FINE_GRAINED),
        marks=(f"{_LAYER}.swish_ffn.w12.*", "backbone.dinov3.storage_tokens"),
        arch="deimv2",
        fields=(("shared_boxes", False),),
        written_for=(("backbone.kind", "vit"), ("backbone.dinov3", True)),
        settings=SETTINGS,
        derived=(
            *DERIVED,
            *SECOND_NAMES,
            "backbone.dinov3.rope_embed.periods",
            "backbone.dinov3.mask_token",  # of the pretraining
            "backbone.dinov3.blocks.{layer}.attn.qkv.bias_mask",  # it takes the bias from the keys
        ),
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
