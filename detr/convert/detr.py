"""The official names of DETR."""

from __future__ import annotations

from detr.convert import torchvision_resnet
from detr.convert.renaming import Table
from detr.convert.transformer_layers import attention, layer

_DECODER = "transformer.decoder.layers.{layer}"

TABLES: dict[str, Table] = {
    "detr-official": Table(
        rows=(
            *layer("transformer.encoder.layers.{layer}", "encoder.layers.{layer}"),
            *layer(_DECODER, "decoder.layers.{layer}"),
            *attention(f"{_DECODER}.multihead_attn", "decoder.layers.{layer}.cross_attention"),
            ("transformer.decoder.norm.*", "decoder.norm.*"),
            ("class_embed.*", "decoder.score_head.*"),
            ("bbox_embed.*", "decoder.box_head.*"),
            ("query_embed.*", "queries.*"),
            ("input_proj.*", "projection.*"),
            *torchvision_resnet.rows("backbone.0.body."),
        ),
        marks=("query_embed.weight", "input_proj.weight", f"{_DECODER}.multihead_attn.in_proj_weight"),
        arch="detr",
        # Normalised before attention: an option of the program that no published model turns on.
        foreign=("transformer.encoder.norm.*",),
    ),
}
