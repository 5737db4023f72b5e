"""Other people's state dicts -> ours and back: rename tables as data.

A row pairs their name with ours. `{word}` stands for a number and `*` for whatever ends the name; both carry over by
word. Where they keep apart what we stack (queries, keys, values), the row's left side is a tuple, stacked in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detr import hugging_face_names
from detr.errors import InputError, UsageError, did_you_mean

State = dict[str, Tensor]
Row = tuple[str | tuple[str, ...], str]


@dataclass(frozen=True)
class Table:
    """Names of one source. Where several rows fit a name, the first counts."""

    rows: tuple[Row, ...]
    marks: tuple[str, ...]  # names, as in the rows, that tell this source: all are there
    foreign: tuple[str, ...] = ()  # names that another source has and this one hasn't
    derived: tuple[str, ...] = ()  # theirs that follow from the configuration; left out, and not given back


_BACKBONE: tuple[tuple[str, str], ...] = (
    ("backbone.conv1.conv1_1.*", "backbone.stem.0.*"),
    ("backbone.conv1.conv1_2.*", "backbone.stem.1.*"),
    ("backbone.conv1.conv1_3.*", "backbone.stem.2.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.branch2a.*", "backbone.stages.{stage}.{block}.conv1.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.branch2b.*", "backbone.stages.{stage}.{block}.conv2.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.branch2c.*", "backbone.stages.{stage}.{block}.conv3.*"),
    ("backbone.res_layers.0.blocks.{block}.short.*", "backbone.stages.0.{block}.shortcut.*"),
    ("backbone.res_layers.{stage}.blocks.{block}.short.conv.*", "backbone.stages.{stage}.{block}.shortcut.*"),
)


def _fusion(theirs: str, ours: str) -> tuple[Row, ...]:
    return (
        (f"{theirs}.conv1.*", f"{ours}.main.*"),
        (f"{theirs}.conv2.*", f"{ours}.side.*"),
        (f"{theirs}.conv3.*", f"{ours}.out.*"),
        (f"{theirs}.bottlenecks.{{block}}.conv1.*", f"{ours}.blocks.{{block}}.conv3x3.*"),
        (f"{theirs}.bottlenecks.{{block}}.conv2.*", f"{ours}.blocks.{{block}}.conv1x1.*"),
    )


def _self_attention(theirs: str, ours: str) -> tuple[Row, ...]:
    return (
        (f"{theirs}.self_attn.in_proj_weight", f"{ours}.self_attention.project_in.weight"),
        (f"{theirs}.self_attn.in_proj_bias", f"{ours}.self_attention.project_in.bias"),
        (f"{theirs}.self_attn.out_proj.*", f"{ours}.self_attention.project_out.*"),
        (f"{theirs}.linear{{n}}.*", f"{ours}.feed_forward.linear{{n}}.*"),
        (f"{theirs}.norm{{n}}.*", f"{ours}.norm{{n}}.*"),
    )


_ENCODER: tuple[Row, ...] = (
    *_self_attention("encoder.encoder.0.layers.{layer}", "encoder.attention.{layer}"),
    ("encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
    ("encoder.downsample_convs.{step}.*", "encoder.downsamples.{step}.*"),
    *_fusion("encoder.fpn_blocks.{step}", "encoder.top_down.{step}"),
    *_fusion("encoder.pan_blocks.{step}", "encoder.bottom_up.{step}"),
)

_CROSS = "decoder.decoder.layers.{layer}.cross_attn"
_DECODER: tuple[Row, ...] = (
    *_self_attention("decoder.decoder.layers.{layer}", "decoder.layers.{layer}"),
    (f"{_CROSS}.sampling_offsets.*", "decoder.layers.{layer}.cross_attention.offsets.*"),
    (f"{_CROSS}.attention_weights.*", "decoder.layers.{layer}.cross_attention.weights.*"),
    (f"{_CROSS}.value_proj.*", "decoder.layers.{layer}.cross_attention.project_value.*"),
    (f"{_CROSS}.output_proj.*", "decoder.layers.{layer}.cross_attention.project_out.*"),
    ("decoder.input_proj.{level}.*", "projections.{level}.*"),
    ("decoder.denoising_class_embed.*", "denoising.class_embedding.*"),
    ("decoder.query_pos_head.*", "decoder.position_head.*"),
    ("decoder.enc_score_head.*", "queries.score_head.*"),
    ("decoder.enc_bbox_head.*", "queries.box_head.*"),
    ("decoder.dec_score_head.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("decoder.dec_bbox_head.{layer}.*", "decoder.box_heads.{layer}.*"),
)

_FUSED = (
    "encoder.fpn_blocks.{step}.bottlenecks.{block}.conv.*",
    "encoder.pan_blocks.{step}.bottlenecks.{block}.conv.*",
)

BACKBONE = "resnet-vd-official"
"""The source of files that hold a backbone and nothing else."""

TABLES: dict[str, Table] = {
    "rtdetr-official": Table(
        rows=(
            *_BACKBONE,
            *_ENCODER,
            ("encoder.input_proj.{level}.0.*", "encoder.projections.{level}.conv.*"),
            ("encoder.input_proj.{level}.1.*", "encoder.projections.{level}.norm.*"),
            *_DECODER,
            ("decoder.enc_output.0.*", "queries.embed.*"),
            ("decoder.enc_output.1.*", "queries.norm.*"),
        ),
        marks=("decoder.enc_output.0.*", "decoder.decoder.layers.{layer}.cross_attn.value_proj.*"),
        derived=_FUSED,
    ),
    "rtdetrv2-official": Table(
        rows=(
            *_BACKBONE,
            *_ENCODER,
            ("encoder.input_proj.{level}.*", "encoder.projections.{level}.*"),
            *_DECODER,
            ("decoder.enc_output.proj.*", "queries.embed.*"),
            ("decoder.enc_output.norm.*", "queries.norm.*"),
        ),
        marks=("decoder.enc_output.proj.*", "decoder.decoder.layers.{layer}.cross_attn.value_proj.*"),
        foreign=("decoder.pre_bbox_head.*", "decoder.query_pos_head.layers.2.*"),
        derived=("decoder.anchors", "decoder.valid_mask", f"{_CROSS}.num_points_scale", *_FUSED),
    ),
    "rt_detr-hf": Table(
        rows=hugging_face_names.ROWS,
        marks=hugging_face_names.MARKS,
        foreign=(*hugging_face_names.FOREIGN, hugging_face_names.POINTS_SCALE),
    ),
    "rt_detr_v2-hf": Table(
        rows=hugging_face_names.ROWS,
        marks=(*hugging_face_names.MARKS, hugging_face_names.POINTS_SCALE),
        foreign=hugging_face_names.FOREIGN,
        derived=(hugging_face_names.POINTS_SCALE,),
    ),
    BACKBONE: Table(
        rows=tuple((theirs.removeprefix("backbone."), ours) for theirs, ours in _BACKBONE),
        marks=("conv1.conv1_1.*", "res_layers.{stage}.blocks.{block}.branch2a.*"),
    ),
}
"""Every source we read, under the name that `identify` gives."""

_OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("DEIMv2", ("decoder.decoder.layers.{layer}.swish_ffn.*",)),
    ("D-FINE or DEIM", ("decoder.pre_bbox_head.*",)),
    ("DEIM-RT-DETRv2", ("decoder.query_pos_head.layers.2.*", "decoder.enc_output.proj.*")),
    ("D-FINE (Hugging Face)", ("model.decoder.lqe_layers.{layer}.*",)),
    ("Deformable DETR (Hugging Face)", ("model.level_embed", "class_embed.{layer}.*")),
    ("DETR (Hugging Face)", ("model.query_position_embeddings.*",)),
    ("RF-DETR or LW-DETR", ("refpoint_embed.*", "query_feat.*")),
    ("DINO", ("transformer.level_embed", "label_enc.*")),
    ("Deformable DETR", ("transformer.level_embed",)),
    ("DETR", ("query_embed.*", "transformer.decoder.*")),
    ("a torchvision detector", ("roi_heads.*",)),
    ("Ultralytics", ("model.{index}.cv{n}.*",)),
    ("a ResNet for classification", ("layer1.0.*", "fc.*")),
)


def identify(state: Iterable[str]) -> str | None:
    """The name in `TABLES` of the source whose names these are, or None."""
    names = list(state)
    for source, table in TABLES.items():
        if all(_any_fits(mark, names) for mark in table.marks) and not any(_any_fits(f, names) for f in table.foreign):
            return source
    return None


def other_model(state: Iterable[str]) -> str | None:
    """What a state dict seems to be that no table of ours is for: a name for people, or None."""
    names = list(state)
    return next((what for what, marks in _OTHERS if all(_any_fits(mark, names) for mark in marks)), None)


def to_ours(state: Mapping[str, Tensor], source: str) -> State:
    """Under our names. What no row knows keeps its name, so that loading it strictly says so.

    InputError if two names of one tensor (Hugging Face keeps such) hold different values.
    """
    table = _table(source)
    derived = [_pattern(name) for name in table.derived]
    parts = [(_pattern(part), ours, place, count) for ours, place, count, part in _parts(table.rows)]
    result: State = {}
    stacks: dict[str, list[tuple[str, Tensor] | None]] = {}
    for name, tensor in state.items():
        if any(pattern.fullmatch(name) for pattern in derived):
            continue
        ours, place, count = name, 0, 1
        for pattern, template, at, of in parts:
            found = pattern.fullmatch(name)
            if found:
                ours, place, count = _filled(template, found), at, of
                break
        if count == 1:
            if ours in result and not torch.equal(result[ours], tensor):
                raise InputError(f"two different tensors for {ours}; the second is {name}")
            result[ours] = tensor
        else:
            stacks.setdefault(ours, [None] * count)[place] = (name, tensor)
            result[ours] = tensor  # keeps the place in the order
    for ours, stack in stacks.items():
        there = [each for each in stack if each is not None]
        if len(there) == len(stack):
            result[ours] = torch.cat([tensor for _, tensor in there])
        else:
            del result[ours]
            result.update(there)
    return result


def to_theirs(state: Mapping[str, Tensor], source: str) -> State:
    """Under the source's names, without what it derives; what no row knows keeps its name."""
    rows = [(_pattern(ours), theirs) for theirs, ours in _table(source).rows]
    result: State = {}
    for name, tensor in state.items():
        for pattern, theirs in rows:
            found = pattern.fullmatch(name)
            if not found:
                continue
            if isinstance(theirs, str):
                result[_filled(theirs, found)] = tensor
            else:
                names = [_filled(part, found) for part in theirs]
                result.update(zip(names, tensor.chunk(len(names)), strict=True))
            break
        else:
            result[name] = tensor
    return result


def _table(source: str) -> Table:
    if source not in TABLES:
        nearest = did_you_mean(source, TABLES) or f"; known are {', '.join(TABLES)}"
        raise UsageError(f"no rename table {source!r}{nearest}")
    return TABLES[source]


def _parts(rows: Iterable[Row]) -> Iterable[tuple[str, int, int, str]]:
    """ours, place in the stack, size of the stack, their name"""
    for theirs, ours in rows:
        names = (theirs,) if isinstance(theirs, str) else theirs
        for place, name in enumerate(names):
            yield ours, place, len(names), name


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name).replace(r"\*", "(?P<rest>.+)")
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", text))


def _filled(template: str, found: re.Match[str]) -> str:
    numbers = found.groupdict()
    return template.replace("*", numbers.pop("rest", "")).format(**numbers)


def _any_fits(name: str, names: Iterable[str]) -> bool:
    pattern = _pattern(name)
    return any(pattern.fullmatch(each) for each in names)
