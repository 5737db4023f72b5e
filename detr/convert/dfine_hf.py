"""The names of D-FINE's tensors in Hugging Face's transformers, as on the hub, and in the memory of version 5."""

from __future__ import annotations

from detr.convert import hgnetv2
from detr.convert.renaming import Row, Table
from detr.convert.rtdetr import csp
from detr.convert.rtdetr_hf import ATTENTION, DECODER, attention

Rows = tuple[Row, ...]

_LAYER = "model.decoder.layers.{layer}"
_POINTS_SCALE = f"{_LAYER}.encoder_attn.num_points_scale"


def _fusion(theirs: str, ours: str) -> Rows:
    theirs, ours = f"model.encoder.{theirs}.{{step}}", f"encoder.{ours}.{{step}}"
    return (
        (f"{theirs}.conv1.*", f"{ours}.split.*"),
        *csp(f"{theirs}.csp_rep1", f"{ours}.first.0"),
        (f"{theirs}.conv2.*", f"{ours}.first.1.*"),
        *csp(f"{theirs}.csp_rep2", f"{ours}.second.0"),
        (f"{theirs}.conv3.*", f"{ours}.second.1.*"),
        (f"{theirs}.conv4.*", f"{ours}.out.*"),
    )


def _feed_forward(theirs: str, ours: str) -> Rows:
    """In the memory of transformers 5."""
    return tuple((f"{theirs}.mlp.layers.{n}.*", f"{ours}.feed_forward.linear{n + 1}.*") for n in (0, 1))


_IN_MEMORY = "model.encoder.aifi.0.layers.{layer}", "encoder.attention.{layer}"

TABLES: dict[str, Table] = {
    "d_fine-hf": Table(
        rows=(
            *hgnetv2.hugging_face("model.backbone.model"),
            *ATTENTION,
            ("model.encoder.downsample_convs.{step}.conv1.*", "encoder.downsamples.{step}.mix.*"),
            ("model.encoder.downsample_convs.{step}.conv2.*", "encoder.downsamples.{step}.shrink.*"),
            *_fusion("fpn_blocks", "top_down"),
            *_fusion("pan_blocks", "bottom_up"),
            *DECODER,
            (f"{_LAYER}.gateway.*", "decoder.layers.{layer}.gate.*"),
            ("model.decoder.lqe_layers.{layer}.reg_conf.*", "decoder.quality_heads.{layer}.head.*"),
            ("model.decoder.pre_bbox_head.*", "decoder.start_head.*"),
            *attention(*_IN_MEMORY, "o_proj"),
            *_feed_forward(*_IN_MEMORY),
            (f"{_IN_MEMORY[0]}.final_layer_norm.*", f"{_IN_MEMORY[1]}.norm2.*"),
            *attention(_LAYER, "decoder.layers.{layer}", "o_proj"),
            *_feed_forward(_LAYER, "decoder.layers.{layer}"),
        ),
        marks=("model.decoder.lqe_layers.{layer}.*", "model.enc_output.0.*", "model.encoder.fpn_blocks.{step}.conv4.*"),
        arch="dfine",
        settings=(("model.decoder.reg_scale", "decoder.scale"), ("model.decoder.up", "decoder.up")),
        derived=(_POINTS_SCALE,),
    ),
}
