"""The names of Deformable DETR's tensors in Hugging Face's transformers.

Files on the hub have a backbone by timm's names, which are torchvision's; we write those of transformers' own ResNet,
which needs nothing installed. Either may hold the names of transformers 4 or, from the memory, those of version 5.
"""

from __future__ import annotations

from detr.convert import torchvision_resnet
from detr.convert.deformable_detr import (
    HEADS,
    ONE_HEAD,
    ONE_HEAD_ALIASES,
    PROPOSING_HEADS,
    deformable_attention,
    fields,
)
from detr.convert.detr_hf import BACKBONES, attention, own_resnet
from detr.convert.renaming import Row, Table


def _layers(*, out: str, feed_forward: str) -> tuple[Row, ...]:
    encoder, our_encoder = "model.encoder.layers.{step}", "encoder.layers.{step}"
    decoder, our_decoder = "model.decoder.layers.{layer}", "decoder.layers.{layer}"
    return (
        *deformable_attention(f"{encoder}.self_attn", f"{our_encoder}.attention"),
        (f"{encoder}.{feed_forward}fc{{n}}.*", f"{our_encoder}.feed_forward.linear{{n}}.*"),
        (f"{encoder}.self_attn_layer_norm.*", f"{our_encoder}.norm1.*"),
        (f"{encoder}.final_layer_norm.*", f"{our_encoder}.norm2.*"),
        *attention(f"{decoder}.self_attn", f"{our_decoder}.self_attention", out),
        *deformable_attention(f"{decoder}.encoder_attn", f"{our_decoder}.cross_attention"),
        (f"{decoder}.{feed_forward}fc{{n}}.*", f"{our_decoder}.feed_forward.linear{{n}}.*"),
        (f"{decoder}.self_attn_layer_norm.*", f"{our_decoder}.norm1.*"),
        (f"{decoder}.encoder_attn_layer_norm.*", f"{our_decoder}.norm2.*"),
        (f"{decoder}.final_layer_norm.*", f"{our_decoder}.norm3.*"),
    )


_TRANSFORMER: tuple[Row, ...] = (
    *(row for prefix in BACKBONES for row in own_resnet(prefix)),
    *(row for prefix in BACKBONES for row in torchvision_resnet.rows(prefix)),
    ("model.input_proj.{level}.*", "encoder.projections.{level}.*"),
    ("model.level_embed", "encoder.level_embedding"),
    *_layers(out="out_proj", feed_forward=""),
    *_layers(out="o_proj", feed_forward="mlp."),
)
_LEARNED: tuple[Row, ...] = (
    ("model.query_position_embeddings.*", "queries.embedding.*"),
    ("model.reference_points.*", "queries.point.*"),
)
_PROPOSED: tuple[Row, ...] = (
    ("model.enc_output.*", "queries.select.embed.*"),
    ("model.enc_output_norm.*", "queries.select.norm.*"),
    ("model.pos_trans.*", "queries.embed.*"),
    ("model.pos_trans_norm.*", "queries.norm.*"),
)
_MARKS = ("model.level_embed", "model.decoder.layers.{layer}.encoder_attn.sampling_offsets.weight")
_REFINING = "model.decoder.bbox_embed.0.layers.0.weight"
_FOREIGN = ("model.text_backbone.*", "model.text_projection.*")  # of Grounding DINO
_BOXES_AGAIN = ("model.decoder.bbox_embed.{layer}.*", "bbox_embed.{layer}.*")
_SCORES_AGAIN = ("model.decoder.class_embed.{layer}.*", "class_embed.{layer}.*")

TABLES: dict[str, Table] = {
    "deformable_detr-hf": Table(
        rows=(*_TRANSFORMER, *_LEARNED, *ONE_HEAD),
        marks=(*_MARKS, "model.query_position_embeddings.weight"),
        arch="deformable_detr",
        fields=fields(refine=False, two_stage=False),
        foreign=(*_FOREIGN, _REFINING),
        aliases=ONE_HEAD_ALIASES,
    ),
    "deformable_detr-refine-hf": Table(
        rows=(*_TRANSFORMER, *_LEARNED, *HEADS),
        marks=(*_MARKS, "model.query_position_embeddings.weight", _REFINING),
        arch="deformable_detr",
        fields=fields(refine=True, two_stage=False),
        foreign=_FOREIGN,
        aliases=(_BOXES_AGAIN,),
        # What version 5 trains has one head for the scores of all layers, and its files hold that once.
        repeated=(("decoder.score_heads.{layer}.*", "decoder.score_heads.0.*"),),
    ),
    "deformable_detr-two-stage-hf": Table(
        rows=(*_TRANSFORMER, *_PROPOSED, *PROPOSING_HEADS, *HEADS),
        marks=(*_MARKS, "model.pos_trans.weight", _REFINING),
        arch="deformable_detr",
        fields=fields(refine=True, two_stage=True),
        counted=(_MARKS[1], "decoder.layers.{layer}.cross_attention.offsets.weight"),
        foreign=_FOREIGN,
        aliases=(_BOXES_AGAIN, _SCORES_AGAIN),
    ),
}
"""Plain, with iterative refinement, and with that in two stages."""
