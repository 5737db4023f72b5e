"""The names of RT-DETR's tensors in Hugging Face's transformers.

The names on the hub are those of transformers 4. Version 5 has others in memory, but writes the old ones.
"""

from __future__ import annotations

from detr.convert.renaming import Row, Table

Rows = tuple[Row, ...]

_BACKBONE = "model.backbone.model"
_HALVES = (("convolution.*", "conv.*"), ("normalization.*", "norm.*"))


def _backbone() -> Rows:
    rows: list[Row] = []
    for theirs, ours in _HALVES:
        block, our_block = f"{_BACKBONE}.encoder.stages.{{stage}}.layers.{{block}}", "backbone.stages.{stage}.{block}"
        first, our_first = block.replace("{stage}", "0"), our_block.replace("{stage}", "0")
        rows += [
            (f"{_BACKBONE}.embedder.embedder.{{n}}.{theirs}", f"backbone.stem.{{n}}.{ours}"),
            (f"{block}.layer.0.{theirs}", f"{our_block}.conv1.{ours}"),
            (f"{block}.layer.1.{theirs}", f"{our_block}.conv2.{ours}"),
            (f"{block}.layer.2.{theirs}", f"{our_block}.conv3.{ours}"),
            (f"{first}.shortcut.{theirs}", f"{our_first}.shortcut.{ours}"),
            (f"{block}.shortcut.1.{theirs}", f"{our_block}.shortcut.{ours}"),
        ]
    return tuple(rows)


def projection(theirs: str, ours: str) -> Rows:
    """A convolution and its norm."""
    return (
        (f"{theirs}.{{level}}.0.*", f"{ours}.{{level}}.conv.*"),
        (f"{theirs}.{{level}}.1.*", f"{ours}.{{level}}.norm.*"),
    )


def _fusion(theirs: str, ours: str) -> Rows:
    theirs, ours = f"model.encoder.{theirs}.{{step}}", f"encoder.{ours}.{{step}}"
    return (
        (f"{theirs}.conv1.*", f"{ours}.main.*"),
        (f"{theirs}.conv2.*", f"{ours}.side.*"),
        (f"{theirs}.conv3.*", f"{ours}.out.*"),
        (f"{theirs}.bottlenecks.{{block}}.conv1.*", f"{ours}.blocks.{{block}}.conv3x3.*"),
        (f"{theirs}.bottlenecks.{{block}}.conv2.*", f"{ours}.blocks.{{block}}.conv1x1.*"),
    )


def attention(theirs: str, ours: str, out: str = "out_proj", feed_forward: str = "") -> Rows:
    """Self-attention with its norm, and the feed-forward part of a layer."""

    def stacked(kind: str) -> tuple[str, ...]:
        return tuple(f"{theirs}.self_attn.{part}_proj.{kind}" for part in "qkv")

    return (
        (stacked("weight"), f"{ours}.self_attention.project_in.weight"),
        (stacked("bias"), f"{ours}.self_attention.project_in.bias"),
        (f"{theirs}.self_attn.{out}.*", f"{ours}.self_attention.project_out.*"),
        (f"{theirs}.{feed_forward}fc{{n}}.*", f"{ours}.feed_forward.linear{{n}}.*"),
        (f"{theirs}.self_attn_layer_norm.*", f"{ours}.norm1.*"),
    )


_AIFI, _LAYER, _CROSS = (
    "encoder.attention.{layer}",
    "model.decoder.layers.{layer}",
    "decoder.layers.{layer}.cross_attention",
)
POINTS_SCALE = f"{_LAYER}.encoder_attn.n_points_scale"
"""A buffer that only version 2 has; it follows from the number of points."""

ATTENTION: Rows = (
    *projection("model.encoder_input_proj", "encoder.projections"),
    *attention("model.encoder.encoder.0.layers.{layer}", _AIFI),
    ("model.encoder.encoder.0.layers.{layer}.final_layer_norm.*", f"{_AIFI}.norm2.*"),
    ("model.encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
)
"""What goes before the fusion blocks of a hybrid encoder."""

DECODER: Rows = (
    *projection("model.decoder_input_proj", "projections"),
    ("model.denoising_class_embed.*", "denoising.class_embedding.*"),
    ("model.enc_output.0.*", "queries.embed.*"),
    ("model.enc_output.1.*", "queries.norm.*"),
    ("model.enc_score_head.*", "queries.score_head.*"),
    ("model.enc_bbox_head.*", "queries.box_head.*"),
    *attention(_LAYER, "decoder.layers.{layer}"),
    (f"{_LAYER}.encoder_attn.sampling_offsets.*", f"{_CROSS}.offsets.*"),
    (f"{_LAYER}.encoder_attn.attention_weights.*", f"{_CROSS}.weights.*"),
    (f"{_LAYER}.final_layer_norm.*", "decoder.layers.{layer}.norm3.*"),
    ("model.decoder.query_pos_head.*", "decoder.position_head.*"),
    ("model.decoder.class_embed.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("model.decoder.bbox_embed.{layer}.*", "decoder.box_heads.{layer}.*"),
    # Second names of the same tensors: files may hold either or both.
    ("class_embed.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("bbox_embed.{layer}.*", "decoder.box_heads.{layer}.*"),
)
"""Of all models with queries selected from a hybrid encoder."""

ROWS: Rows = (
    *_backbone(),
    *ATTENTION,
    ("model.encoder.downsample_convs.{step}.*", "encoder.downsamples.{step}.*"),
    *_fusion("fpn_blocks", "top_down"),
    *_fusion("pan_blocks", "bottom_up"),
    *DECODER,
    (f"{_LAYER}.encoder_attn.value_proj.*", f"{_CROSS}.project_value.*"),
    (f"{_LAYER}.encoder_attn.output_proj.*", f"{_CROSS}.project_out.*"),
    (f"{_LAYER}.encoder_attn_layer_norm.*", "decoder.layers.{layer}.norm2.*"),
    # Names in the memory of transformers 5.
    *attention("model.encoder.aifi.0.layers.{layer}", _AIFI, "o_proj", "mlp."),
    ("model.encoder.aifi.0.layers.{layer}.final_layer_norm.*", f"{_AIFI}.norm2.*"),
    *attention(_LAYER, "decoder.layers.{layer}", "o_proj", "mlp."),
)
"""Their name, our name; for reading all count, for writing the first."""

_MARKS = ("model.enc_bbox_head.*", f"{_LAYER}.encoder_attn.sampling_offsets.*")
_FOREIGN = ("model.decoder.lqe_layers.{layer}.*", "model.level_embed")  # of D-FINE and Deformable DETR

TABLES: dict[str, Table] = {
    "rt_detr-hf": Table(
        rows=ROWS, marks=_MARKS, arch="rtdetr", fields=(("version", 1),), foreign=(*_FOREIGN, POINTS_SCALE)
    ),
    "rt_detr_v2-hf": Table(
        rows=ROWS,
        marks=(*_MARKS, POINTS_SCALE),
        arch="rtdetr",
        fields=(("version", 2),),
        foreign=_FOREIGN,
        derived=(POINTS_SCALE,),
    ),
}
