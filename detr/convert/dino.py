"""The official names of DINO."""

from __future__ import annotations

from detr.convert.deformable_detr import COUNTS, TRANSFORMER
from detr.convert.renaming import Table

TABLES: dict[str, Table] = {
    "dino-official": Table(
        rows=(
            *TRANSFORMER,
            ("transformer.decoder.norm.*", "decoder.norm.*"),
            ("transformer.decoder.ref_point_head.*", "decoder.position_head.*"),
            ("transformer.tgt_embed.weight", "content"),
            ("transformer.enc_output.*", "queries.embed.*"),
            ("transformer.enc_output_norm.*", "queries.norm.*"),
            ("transformer.enc_out_class_embed.*", "queries.score_head.*"),
            ("transformer.enc_out_bbox_embed.*", "queries.box_head.*"),
            ("label_enc.*", "denoising.class_embedding.*"),
            ("class_embed.0.*", "decoder.score_head.*"),
            ("bbox_embed.0.*", "decoder.box_head.*"),
        ),
        marks=("transformer.level_embed", "transformer.tgt_embed.weight", "transformer.enc_out_class_embed.weight"),
        arch="dino",
        fields=(("slots", "id"),),
        derived=COUNTS,
        aliases=tuple(
            (f"{prefix}{head}.{{layer}}.*", f"{head}.0.*")
            for prefix in ("", "transformer.decoder.")
            for head in ("class_embed", "bbox_embed")
        ),
    ),
}
