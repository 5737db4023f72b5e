"""The official names of Deformable DETR."""

from __future__ import annotations

from detr.convert import torchvision_resnet
from detr.convert.renaming import Row, Table
from detr.convert.transformer_layers import attention


def deformable_attention(theirs: str, ours: str) -> tuple[Row, ...]:
    """Rows for the official `MSDeformAttn`."""
    return (
        (f"{theirs}.sampling_offsets.*", f"{ours}.offsets.*"),
        (f"{theirs}.attention_weights.*", f"{ours}.weights.*"),
        (f"{theirs}.value_proj.*", f"{ours}.project_value.*"),
        (f"{theirs}.output_proj.*", f"{ours}.project_out.*"),
    )


_ENCODER, _OUR_ENCODER = "transformer.encoder.layers.{step}", "encoder.layers.{step}"
_DECODER, _OUR_DECODER = "transformer.decoder.layers.{layer}", "decoder.layers.{layer}"
TRANSFORMER: tuple[Row, ...] = (
    *torchvision_resnet.rows("backbone.0.body."),
    ("input_proj.{level}.*", "encoder.projections.{level}.*"),
    ("transformer.level_embed", "encoder.level_embedding"),
    *deformable_attention(f"{_ENCODER}.self_attn", f"{_OUR_ENCODER}.attention"),
    (f"{_ENCODER}.linear{{n}}.*", f"{_OUR_ENCODER}.feed_forward.linear{{n}}.*"),
    (f"{_ENCODER}.norm{{n}}.*", f"{_OUR_ENCODER}.norm{{n}}.*"),
    *attention(f"{_DECODER}.self_attn", f"{_OUR_DECODER}.self_attention"),
    *deformable_attention(f"{_DECODER}.cross_attn", f"{_OUR_DECODER}.cross_attention"),
    (f"{_DECODER}.linear{{n}}.*", f"{_OUR_DECODER}.feed_forward.linear{{n}}.*"),
    # Numbered in the order in which they were written, not in that of their use.
    (f"{_DECODER}.norm2.*", f"{_OUR_DECODER}.norm1.*"),
    (f"{_DECODER}.norm1.*", f"{_OUR_DECODER}.norm2.*"),
    (f"{_DECODER}.norm3.*", f"{_OUR_DECODER}.norm3.*"),
)
"""The backbone, the encoder and the layers of the decoder, in Deformable DETR and in DINO."""

COUNTS = ("*total_ops", "*total_params")
"""What a profiler has left in published files."""

_LEARNED: tuple[Row, ...] = (
    ("query_embed.*", "queries.embedding.*"),
    ("transformer.reference_points.*", "queries.point.*"),
)
_PROPOSED: tuple[Row, ...] = (
    ("transformer.enc_output.*", "queries.select.embed.*"),
    ("transformer.enc_output_norm.*", "queries.select.norm.*"),
    ("transformer.pos_trans.*", "queries.embed.*"),
    ("transformer.pos_trans_norm.*", "queries.norm.*"),
)
PROPOSING_HEADS: tuple[Row, ...] = (  # behind those of the layers
    ("class_embed.{count}.*", "queries.select.score_head.*"),
    ("bbox_embed.{count}.*", "queries.select.box_head.*"),
)
HEADS: tuple[Row, ...] = (
    ("class_embed.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("bbox_embed.{layer}.*", "decoder.box_heads.{layer}.*"),
)
ONE_HEAD: tuple[Row, ...] = (
    ("class_embed.0.*", "decoder.score_heads.0.*"),
    ("bbox_embed.0.*", "decoder.box_heads.0.*"),
)
ONE_HEAD_ALIASES = (("class_embed.{layer}.*", "class_embed.0.*"), ("bbox_embed.{layer}.*", "bbox_embed.0.*"))
_MARKS = ("transformer.level_embed", f"{_DECODER}.cross_attn.value_proj.weight", "bbox_embed.0.layers.0.weight")
_REFINING = "transformer.decoder.bbox_embed.0.layers.0.weight"
_FOREIGN = ("label_enc.*", "transformer.tgt_embed.*", "transformer.decoder.norm.*")  # of DINO and its kin


def fields(*, refine: bool, two_stage: bool) -> tuple[tuple[str, str | bool], ...]:
    """What the names of a variant say of the model section."""
    return (("slots", "id"), ("refine", refine), ("two_stage", two_stage))


TABLES: dict[str, Table] = {
    "deformable_detr-official": Table(
        rows=(*TRANSFORMER, *_LEARNED, *ONE_HEAD),
        marks=(*_MARKS, "query_embed.weight"),
        arch="deformable_detr",
        fields=fields(refine=False, two_stage=False),
        foreign=(*_FOREIGN, _REFINING),
        derived=COUNTS,
        aliases=ONE_HEAD_ALIASES,
    ),
    "deformable_detr-refine-official": Table(
        rows=(*TRANSFORMER, *_LEARNED, *HEADS),
        marks=(*_MARKS, "query_embed.weight", _REFINING),
        arch="deformable_detr",
        fields=fields(refine=True, two_stage=False),
        foreign=_FOREIGN,
        derived=COUNTS,
        aliases=(("transformer.decoder.bbox_embed.{layer}.*", "bbox_embed.{layer}.*"),),
    ),
    "deformable_detr-two-stage-official": Table(
        rows=(*TRANSFORMER, *_PROPOSED, *PROPOSING_HEADS, *HEADS),
        marks=(*_MARKS, "transformer.pos_trans.weight", _REFINING),
        arch="deformable_detr",
        fields=fields(refine=True, two_stage=True),
        counted=(_MARKS[1], "decoder.layers.{layer}.cross_attention.project_value.weight"),
        foreign=_FOREIGN,
        derived=COUNTS,
        aliases=(
            ("transformer.decoder.class_embed.{layer}.*", "class_embed.{layer}.*"),
            ("transformer.decoder.bbox_embed.{layer}.*", "bbox_embed.{layer}.*"),
        ),
    ),
}
"""Plain, with iterative refinement, and with that in two stages."""
