"""The names of DETR's tensors in Hugging Face's transformers.

Files on the hub have a backbone by timm's names, which are torchvision's, or in their `no_timm` revision by those of
transformers' own ResNet. Either may hold the names of transformers 4 or, straight from the memory, those of version 5.
"""

from __future__ import annotations

from detr.convert import torchvision_resnet
from detr.convert.renaming import Row, Table

BACKBONES = ("model.backbone.conv_encoder.model.", "model.backbone.model.")  # in files, in version 5's memory


def own_resnet(theirs: str) -> tuple[Row, ...]:
    """Rows for transformers' own ResNet, whose names begin with `theirs`."""
    rows: list[Row] = []
    for half, our_half in (("convolution.*", "conv.*"), ("normalization.*", "norm.*")):
        block, our_block = f"{theirs}encoder.stages.{{stage}}.layers.{{block}}", "backbone.stages.{stage}.{block}"
        rows += [
            (f"{theirs}embedder.embedder.{half}", f"backbone.stem.0.{our_half}"),
            *((f"{block}.layer.{n}.{half}", f"{our_block}.conv{n + 1}.{our_half}") for n in range(3)),
            (f"{block}.shortcut.{half}", f"{our_block}.shortcut.{our_half}"),
        ]
    return tuple(rows)


def attention(theirs: str, ours: str, out: str) -> tuple[Row, ...]:
    """Rows for dense attention, which keeps its matrices apart; `out` is what the last of them is called."""
    return (
        *(
            (tuple(f"{theirs}.{part}_proj.{kind}" for part in "qkv"), f"{ours}.project_in.{kind}")
            for kind in ("weight", "bias")
        ),
        (f"{theirs}.{out}.*", f"{ours}.project_out.*"),
    )


def _transformer(*, out: str, feed_forward: str) -> tuple[Row, ...]:
    rows: list[Row] = []
    for half in ("encoder", "decoder"):
        theirs, ours = f"model.{half}.layers.{{layer}}", f"{half}.layers.{{layer}}"
        rows += attention(f"{theirs}.self_attn", f"{ours}.self_attention", out)
        rows += [
            (f"{theirs}.{feed_forward}fc{{n}}.*", f"{ours}.feed_forward.linear{{n}}.*"),
            (f"{theirs}.self_attn_layer_norm.*", f"{ours}.norm1.*"),
            (f"{theirs}.final_layer_norm.*", f"{ours}.norm{2 if half == 'encoder' else 3}.*"),
        ]
    theirs, ours = "model.decoder.layers.{layer}.encoder_attn", "decoder.layers.{layer}"
    rows += attention(theirs, f"{ours}.cross_attention", out)
    return (*rows, (f"{theirs}_layer_norm.*", f"{ours}.norm2.*"))


_REST: tuple[Row, ...] = (
    *_transformer(out="out_proj", feed_forward=""),
    ("model.decoder.layernorm.*", "decoder.norm.*"),
    ("class_labels_classifier.*", "decoder.score_head.*"),
    ("bbox_predictor.*", "decoder.box_head.*"),
    ("model.query_position_embeddings.*", "queries.*"),
    ("model.input_projection.*", "projection.*"),
    *_transformer(out="o_proj", feed_forward="mlp."),
)
_MARKS = ("model.query_position_embeddings.weight", "model.input_projection.weight", "class_labels_classifier.weight")
# What Table Transformer and Conditional DETR have there, and DETR hasn't.
_FOREIGN = ("model.encoder.layernorm.*", "model.decoder.ref_point_head.*", "model.decoder.layers.{layer}.sa_v_proj.*")


def _table(rows: tuple[Row, ...], mark: str, *, dilated: bool) -> Table:
    return Table(
        rows=(*rows, *_REST),
        marks=(*_MARKS, mark),
        arch="detr",
        foreign=_FOREIGN,
        written_for=(("backbone.dilated_last", dilated),),
    )


TABLES: dict[str, Table] = {
    "detr-hf": _table(
        tuple(row for prefix in BACKBONES for row in own_resnet(prefix)),
        f"{BACKBONES[0]}embedder.embedder.convolution.weight",
        dilated=False,
    ),
    "detr-timm-hf": _table(
        tuple(row for prefix in BACKBONES for row in torchvision_resnet.rows(prefix)),
        f"{BACKBONES[0]}conv1.weight",
        dilated=True,
    ),
}
"""Without timm and with it. Only timm can dilate a ResNet, so the second is written only where it has to be."""
