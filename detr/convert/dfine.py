"""The official names of D-FINE, and of DEIM, which has the same."""

from __future__ import annotations

from detr.convert import hgnetv2
from detr.convert.fusion import elan, lean
from detr.convert.renaming import Row, Table
from detr.convert.rtdetr import ATTENTION, DECODER, DERIVED, NAMED, csp

FINE_GRAINED: tuple[Row, ...] = (
    ("decoder.decoder.layers.{layer}.gateway.*", "decoder.layers.{layer}.gate.*"),
    ("decoder.decoder.lqe_layers.{layer}.reg_conf.*", "decoder.quality_heads.{layer}.head.*"),
    ("decoder.pre_bbox_head.*", "decoder.start_head.*"),
)
"""Of the fine-grained decoder alone."""

SETTINGS = (("decoder.reg_scale", "decoder.scale"), ("decoder.up", "decoder.up"))
SECOND_NAMES = ("decoder.decoder.reg_scale", "decoder.decoder.up")

TABLES: dict[str, Table] = {
    "dfine-official": Table(
        rows=(
            *hgnetv2.ROWS,
            *ATTENTION,
            ("encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
            *lean("encoder.downsample_convs.{step}", "encoder.downsamples.{step}"),
            *elan("encoder.fpn_blocks.{step}", "encoder.top_down.{step}", csp),
            *elan("encoder.pan_blocks.{step}", "encoder.bottom_up.{step}", csp),
            *DECODER,
            *FINE_GRAINED,
            *NAMED,
        ),
        marks=("decoder.pre_bbox_head.*", "decoder.enc_output.proj.*", "encoder.fpn_blocks.{step}.cv4.*"),
        arch="dfine",
        settings=SETTINGS,
        derived=(*DERIVED, *SECOND_NAMES),
    ),
}
