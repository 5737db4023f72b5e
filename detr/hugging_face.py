"""RT-DETR as Hugging Face's transformers keeps it: the names in its files, and its config.json both ways.

The names on the hub are those of transformers 4. Version 5 has others in memory, but writes the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import COCO, Classes
from detr.errors import InputError

Rows = tuple[tuple[str | tuple[str, ...], str], ...]

_BACKBONE = "model.backbone.model"
_HALVES = (("convolution.*", "conv.*"), ("normalization.*", "norm.*"))


def _backbone() -> Rows:
    rows: list[tuple[str | tuple[str, ...], str]] = []
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


def _projection(theirs: str, ours: str) -> Rows:
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


def _attention(theirs: str, ours: str, out: str = "out_proj", feed_forward: str = "") -> Rows:
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

ROWS: Rows = (
    *_backbone(),
    *_projection("model.encoder_input_proj", "encoder.projections"),
    *_attention("model.encoder.encoder.0.layers.{layer}", _AIFI),
    ("model.encoder.encoder.0.layers.{layer}.final_layer_norm.*", f"{_AIFI}.norm2.*"),
    ("model.encoder.lateral_convs.{step}.*", "encoder.laterals.{step}.*"),
    ("model.encoder.downsample_convs.{step}.*", "encoder.downsamples.{step}.*"),
    *_fusion("fpn_blocks", "top_down"),
    *_fusion("pan_blocks", "bottom_up"),
    *_projection("model.decoder_input_proj", "projections"),
    ("model.denoising_class_embed.*", "denoising.class_embedding.*"),
    ("model.enc_output.0.*", "queries.embed.*"),
    ("model.enc_output.1.*", "queries.norm.*"),
    ("model.enc_score_head.*", "queries.score_head.*"),
    ("model.enc_bbox_head.*", "queries.box_head.*"),
    *_attention(_LAYER, "decoder.layers.{layer}"),
    (f"{_LAYER}.encoder_attn.sampling_offsets.*", f"{_CROSS}.offsets.*"),
    (f"{_LAYER}.encoder_attn.attention_weights.*", f"{_CROSS}.weights.*"),
    (f"{_LAYER}.encoder_attn.value_proj.*", f"{_CROSS}.project_value.*"),
    (f"{_LAYER}.encoder_attn.output_proj.*", f"{_CROSS}.project_out.*"),
    (f"{_LAYER}.encoder_attn_layer_norm.*", "decoder.layers.{layer}.norm2.*"),
    (f"{_LAYER}.final_layer_norm.*", "decoder.layers.{layer}.norm3.*"),
    ("model.decoder.query_pos_head.*", "decoder.position_head.*"),
    ("model.decoder.class_embed.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("model.decoder.bbox_embed.{layer}.*", "decoder.box_heads.{layer}.*"),
    # Second names of the same tensors: files may hold either or both.
    ("class_embed.{layer}.*", "decoder.score_heads.{layer}.*"),
    ("bbox_embed.{layer}.*", "decoder.box_heads.{layer}.*"),
    # Names in the memory of transformers 5.
    *_attention("model.encoder.aifi.0.layers.{layer}", _AIFI, "o_proj", "mlp."),
    ("model.encoder.aifi.0.layers.{layer}.final_layer_norm.*", f"{_AIFI}.norm2.*"),
    *_attention(_LAYER, "decoder.layers.{layer}", "o_proj", "mlp."),
)
"""Their name, our name; for reading all count, for writing the first."""

MARKS = ("model.enc_bbox_head.*", f"{_LAYER}.encoder_attn.sampling_offsets.*")
"""Names that tell these models from others."""
FOREIGN = ("model.decoder.lqe_layers.{layer}.*", "model.level_embed")
"""Names that D-FINE and Deformable DETR have there, and these models haven't."""

_VERSIONS = {"rt_detr": 1, "rt_detr_v2": 2}
_DEPTHS = {
    ("basic", (1, 1, 1, 1)): 10,
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
}
# What the authors' models never vary, and we don't either: setting -> the one value, which is also the default.
_FIXED: dict[str, Any] = {
    "encode_proj_layers": [2],
    "positional_encoding_temperature": 10000,
    "encoder_activation_function": "gelu",
    "activation_function": "silu",
    "decoder_activation_function": "relu",
    "normalize_before": False,
    "num_feature_levels": 3,
    "feat_strides": [8, 16, 32],
    "learn_initial_query": False,
    "with_box_refine": True,
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
    "decoder_n_levels": 3,
    "decoder_offset_scale": 0.5,
}
_FIXED_BACKBONE: dict[str, Any] = {
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
    "num_channels": 3,
}
# Our setting -> theirs with its default.
_SETTINGS: dict[tuple[str, ...], tuple[str, Any]] = {
    ("num_queries",): ("num_queries", 300),
    ("num_denoising",): ("num_denoising", 100),
    ("label_noise",): ("label_noise_ratio", 0.5),
    ("box_noise",): ("box_noise_scale", 1.0),
    ("encoder", "channels"): ("encoder_hidden_dim", 256),
    ("encoder", "heads"): ("encoder_attention_heads", 8),
    ("encoder", "hidden"): ("encoder_ffn_dim", 1024),
    ("encoder", "num_layers"): ("encoder_layers", 1),
    ("encoder", "expansion"): ("hidden_expansion", 1.0),
    ("decoder", "channels"): ("d_model", 256),
    ("decoder", "heads"): ("decoder_attention_heads", 8),
    ("decoder", "hidden"): ("decoder_ffn_dim", 1024),
    ("decoder", "num_layers"): ("decoder_layers", 6),
    ("backbone", "frozen_norms"): ("freeze_backbone_batch_norms", True),
}


def model_of(config: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """The model section of a recipe that a config.json amounts to; None for a model we don't have.

    InputError names the first setting that our RT-DETR does not vary.
    """
    if config.get("model_type") not in _VERSIONS:
        return None
    backbone = config.get("backbone_config") or {}
    for settings, fixed in ((config, _FIXED), (backbone, _FIXED_BACKBONE)):
        for name, value in fixed.items():
            given = settings.get(name, value)
            if given != value:
                raise InputError(f"{source}: {name} {given!r} is not supported, only {value!r}")
    version = _VERSIONS[config["model_type"]]
    model: dict[str, Any] = {"arch": "rtdetr", "version": version, "backbone": _backbone_of(backbone, source)}
    for place, (name, default) in _SETTINGS.items():
        section = model.setdefault(place[0], {}) if len(place) == 2 else model
        section[place[-1]] = config.get(name, default)
    points = config.get("decoder_n_points", 4)
    model["decoder"]["points"] = list(points) if isinstance(points, list | tuple) else [points] * 3
    if version == 2 and config.get("decoder_method", "default") == "discrete":
        model["decoder"]["sampling"] = "discrete"
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    backbone, encoder, decoder = model["backbone"], model["encoder"], model["decoder"]
    version, points = model["version"], list(decoder["points"])
    if encoder["depth"] != 1.0:
        raise InputError(
            f"encoder.depth {encoder['depth']} can't be written for transformers, which has three blocks always"
        )
    if version == 1 and (decoder["sampling"] != "bilinear" or len(set(points)) > 1):
        raise InputError("transformers' rt_detr knows neither discrete sampling nor levels of different points")
    kind, depths = next(key for key, depth in _DEPTHS.items() if depth == backbone["depth"])
    first = backbone["width"] * (4 if kind == "bottleneck" else 1)
    widths = [first * 2**level for level in range(4)]
    config: dict[str, Any] = {
        "model_type": next(name for name, number in _VERSIONS.items() if number == version),
        "architectures": ["RTDetrForObjectDetection" if version == 1 else "RTDetrV2ForObjectDetection"],
        "backbone_config": {
            "model_type": "rt_detr_resnet",
            "embedding_size": backbone["width"],
            "hidden_sizes": widths,
            "depths": list(depths),
            "layer_type": kind,
            "out_features": ["stage2", "stage3", "stage4"],
            **_FIXED_BACKBONE,
        },
        "encoder_in_channels": widths[1:],
        "decoder_in_channels": [encoder["channels"]] * 3,
        "decoder_n_points": points[0] if len(set(points)) == 1 else points,
        "id2label": {str(index): name for index, name in enumerate(classes.names)},
        "label2id": {name: index for index, name in enumerate(classes.names)},
        **{name: value for name, value in _FIXED.items() if version == 2 or not name.startswith("decoder_n_levels")},
    }
    if version == 2:
        config["decoder_method"] = "discrete" if decoder["sampling"] == "discrete" else "default"
    for place, (name, _) in _SETTINGS.items():
        config[name] = model[place[0]] if len(place) == 1 else model[place[0]][place[1]]
    return config


def processor_of(height: int, width: int) -> dict[str, Any]:
    """The preprocessor_config.json of a model without normalisation: resized to one size, scaled to [0, 1]."""
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": False,
        "do_pad": False,
    }


def classes_of(config: Mapping[str, Any], source: str) -> Classes | None:
    """`id2label` as classes. COCO's names in COCO's order are COCO, original ids included."""
    labels = config.get("id2label")
    if labels is None:
        return None
    try:
        by_index = {int(index): str(name) for index, name in labels.items()}
    except (AttributeError, ValueError):
        raise InputError(f"{source}: id2label is not a table from indices to names") from None
    if sorted(by_index) != list(range(len(by_index))):
        raise InputError(f"{source}: id2label does not count from 0 to {len(by_index) - 1}")
    classes = Classes.from_names(by_index[index] for index in range(len(by_index)))
    return COCO if classes.names == COCO.names else classes


def _backbone_of(backbone: Mapping[str, Any], source: str) -> dict[str, Any]:
    kind = backbone.get("layer_type", "bottleneck")
    depths = tuple(backbone.get("depths", (3, 4, 6, 3)))
    if (kind, depths) not in _DEPTHS:
        raise InputError(
            f"{source}: a backbone of {kind} blocks {depths} is none of ResNet-vd {sorted(_DEPTHS.values())}"
        )
    width, widths = backbone.get("embedding_size", 64), list(backbone.get("hidden_sizes", (256, 512, 1024, 2048)))
    expected = [width * (4 if kind == "bottleneck" else 1) * 2**level for level in range(4)]
    if widths != expected:
        raise InputError(
            f"{source}: backbone hidden_sizes {widths} are not supported, only {expected} for width {width}"
        )
    return {"depth": _DEPTHS[kind, depths], "width": width}
