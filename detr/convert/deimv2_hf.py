"""The names of DEIMv2's tensors in Hugging Face's transformers, the same on the hub and in memory.

transformers' network is not quite the authors': it embeds and norms the memory before it selects queries, its heads
have ReLU for SiLU, and positions follow the boxes from layer to layer. Its files hold the authors' weights all the
same, and something without meaning for the layers that are too many.
"""

from __future__ import annotations

from detr.convert import hgnetv2
from detr.convert.fusion import joint
from detr.convert.renaming import Row, Table
from detr.convert.rtdetr_hf import DECODER, attention

Rows = tuple[Row, ...]

_ENCODER = "model.encoder.aifi.0.layers.{layer}", "encoder.attention.{layer}"
_LAYER, _OURS = "model.decoder.layers.{layer}", "decoder.layers.{layer}"


def _fusion(theirs: str, ours: str) -> Rows:
    theirs = f"model.encoder.{theirs}"
    return (
        (f"{theirs}.conv1.*", f"{ours}.split.*"),
        *joint(f"{theirs}.csp_rep1", f"{ours}.first.0"),
        (f"{theirs}.csp_rep1.conv2.*", f"{ours}.first.1.*"),
        *joint(f"{theirs}.csp_rep2", f"{ours}.second.0"),
        (f"{theirs}.csp_rep2.conv2.*", f"{ours}.second.1.*"),
        (f"{theirs}.conv2.*", f"{ours}.out.*"),
    )


def _gate_and_up(kind: str) -> tuple[str, ...]:
    return tuple(f"{_LAYER}.mlp.{part}_proj.{kind}" for part in ("gate", "up"))


_HYBRID: Rows = (
    ("model.conv_encoder.encoder_input_proj.{level}.*", "encoder.projections.{level}.*"),
    (f"{_ENCODER[0]}.mlp.layers.0.*", f"{_ENCODER[1]}.feed_forward.linear1.*"),
    (f"{_ENCODER[0]}.mlp.layers.1.*", f"{_ENCODER[1]}.feed_forward.linear2.*"),
    *attention(*_ENCODER, "o_proj"),
    (f"{_ENCODER[0]}.final_layer_norm.*", f"{_ENCODER[1]}.norm2.*"),
    ("model.encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
    ("model.encoder.downsample_convs.{step}.conv1.*", "encoder.downsamples.{step}.mix.*"),
    ("model.encoder.downsample_convs.{step}.conv2.*", "encoder.downsamples.{step}.shrink.*"),
    *_fusion("fpn_blocks.{step}", "encoder.top_down.{step}"),
    *_fusion("pan_blocks.{step}", "encoder.bottom_up.{step}"),
)
_LITE: Rows = (
    ("model.encoder.input_proj.{level}.*", "encoder.projections.{level}.*"),
    ("model.encoder.down_conv1.*", "encoder.coarsen.*"),
    ("model.encoder.down_conv2.*", "encoder.downsample.*"),
    ("model.encoder.bi_fusion_conv.*", "encoder.spread.*"),
    *_fusion("fpn_block", "encoder.top_down"),
    *_fusion("pan_block", "encoder.bottom_up"),
)
_DECODER: Rows = (
    ("model.decoder_input_proj.{level}.*", "projections.{level}.*"),
    *attention(_LAYER, _OURS, "o_proj"),
    (f"{_LAYER}.encoder_attn_layer_norm.*", f"{_OURS}.norm2.*"),
    (f"{_LAYER}.gateway.*", f"{_OURS}.gate.*"),
    (_gate_and_up("weight"), f"{_OURS}.feed_forward.project_in.weight"),
    (_gate_and_up("bias"), f"{_OURS}.feed_forward.project_in.bias"),
    (f"{_LAYER}.mlp.down_proj.*", f"{_OURS}.feed_forward.project_out.*"),
    ("model.decoder.lqe_layers.{layer}.reg_conf.*", "decoder.quality_heads.{layer}.head.*"),
    ("model.decoder.pre_bbox_head.*", "decoder.start_head.*"),
    *DECODER,
)

_MARK = f"{_LAYER}.mlp.gate_proj.weight"
_SETTINGS = (("model.decoder.reg_scale", "decoder.scale"), ("model.decoder.up", "decoder.up"))
_DERIVED = (f"{_LAYER}.encoder_attn.num_points_scale",)
_FILLERS = (
    ("model.enc_output.0.weight", "identity"),
    ("model.enc_output.0.bias", "zeros"),
    ("model.enc_output.1.weight", "ones"),
    ("model.enc_output.1.bias", "zeros"),
)

TABLES: dict[str, Table] = {
    "deimv2-hf": Table(
        rows=(*hgnetv2.hugging_face("model.conv_encoder.model"), *_HYBRID, *_DECODER),
        marks=(_MARK, f"{_LAYER}.gateway.gate.weight"),
        arch="deimv2",
        fields=(("shared_boxes", False),),
        settings=_SETTINGS,
        derived=_DERIVED,
        fillers=_FILLERS,
    ),
    "deimv2-lite-hf": Table(
        rows=(*hgnetv2.hugging_face("model.conv_encoder.model"), *_LITE, *_DECODER),
        marks=(_MARK, "model.encoder.bi_fusion_conv.*"),
        arch="deimv2",
        fields=(("shared_boxes", True),),
        settings=_SETTINGS,
        derived=_DERIVED,
        fillers=_FILLERS,
        aliases=(
            ("model.decoder.bbox_embed.{layer}.*", "model.decoder.bbox_embed.0.*"),
            ("bbox_embed.{layer}.*", "model.decoder.bbox_embed.0.*"),
        ),
    ),
}
