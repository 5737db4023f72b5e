"""config.json of Hugging Face's DEIMv2, both ways; detr/convert/deimv2_hf.py says what transformers does otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import Classes
from detr.errors import InputError
from detr.hugging_face import hgnetv2
from detr.hugging_face.processor import labels_of

TYPES = ("deimv2",)
"""The model types that are read here."""

# What the authors' models never vary, and we don't either: setting -> the one value.
_FIXED: dict[str, Any] = {
    "positional_encoding_temperature": 10000,
    "encoder_activation_function": "gelu",
    "activation_function": "silu",
    "decoder_activation_function": "silu",
    "normalize_before": False,
    "learn_initial_query": False,
    "with_box_refine": True,
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
    "layer_scale": 1,
    "top_prob_values": 4,
    "lqe_hidden_dim": 64,
    "lqe_layers": 2,
    "decoder_offset_scale": 0.5,
    "encoder_fuse_op": "sum",
}
_DEFAULTS = {"decoder_activation_function": "relu"}
"""What transformers takes where a file doesn't say, if that is another value."""

# Our setting -> theirs with its default.
_SETTINGS: dict[tuple[str, ...], tuple[str, Any]] = {
    ("num_queries",): ("num_queries", 300),
    ("num_denoising",): ("num_denoising", 100),
    ("label_noise",): ("label_noise_ratio", 0.5),
    ("box_noise",): ("box_noise_scale", 1.0),
    ("gated",): ("use_gateway", True),
    ("shared_boxes",): ("share_bbox_head", False),
    ("encoder", "channels"): ("encoder_hidden_dim", 256),
    ("encoder", "expansion"): ("hidden_expansion", 1.0),
    ("encoder", "depth"): ("depth_mult", 1.0),
    ("decoder", "channels"): ("d_model", 256),
    ("decoder", "heads"): ("decoder_attention_heads", 8),
    ("decoder", "num_layers"): ("decoder_layers", 6),
    ("decoder", "scale"): ("reg_scale", 4.0),
    ("decoder", "up"): ("up", 0.5),
    ("backbone", "frozen_norms"): ("freeze_backbone_batch_norms", True),
}
_SETTINGS_OF_HYBRID: dict[tuple[str, ...], tuple[str, Any]] = {
    ("encoder", "heads"): ("encoder_attention_heads", 8),
    ("encoder", "hidden"): ("encoder_ffn_dim", 1024),
    ("encoder", "num_layers"): ("encoder_layers", 1),
}


def model_of(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The model section of a recipe that a config.json amounts to.

    InputError names the first setting that our DEIMv2 does not vary.
    """
    lite = config.get("encoder_type", "hybrid") == "lite"
    trailing = config.get("encoder_has_trailing_conv", True)
    model: dict[str, Any] = {
        "arch": "deimv2",
        "backbone": hgnetv2.backbone_of(config.get("backbone_config") or {"out_indices": [2, 3, 4]}, source),
        "encoder": {"kind": "lite"} if lite else {"fusion": "elan-joint" if trailing else "elan-short"},
    }
    if not lite:
        model["encoder"]["project"] = "always"
    num_levels = len(model["backbone"]["stages"]) + lite
    fixed = _FIXED | {"num_feature_levels": num_levels}
    if lite:
        fixed |= {"encoder_has_trailing_conv": True}
    else:
        fixed |= {"encode_proj_layers": [num_levels - 1], "feat_strides": hgnetv2.strides_of(model["backbone"])}
    for name, value in fixed.items():
        given = config.get(name, _DEFAULTS.get(name, value))
        if given != value:
            raise InputError(f"{source}: {name} {given!r} is not supported, only {value!r}")
    for place, (name, default) in _settings(lite).items():
        section = model.setdefault(place[0], {}) if len(place) == 2 else model
        section[place[-1]] = config.get(name, default)
    if lite == (not model["shared_boxes"]):
        raise InputError(f"{source}: share_bbox_head {model['shared_boxes']} goes with the other encoder_type only")
    decoder, points = model["decoder"], config.get("decoder_n_points", 4)
    decoder["hidden"] = config.get("decoder_ffn_dim", 1024) // 2
    decoder["points"] = list(points) if isinstance(points, list | tuple) else [points] * num_levels
    decoder["bins"] = config.get("max_num_bins", 32) + 1
    decoder["sampling"] = "discrete" if config.get("decoder_method", "default") == "discrete" else "bilinear"
    if config.get("eval_idx", -1) not in (-1, decoder["num_layers"] - 1):
        raise InputError(f"{source}: eval_idx {config['eval_idx']} is not supported, only -1, the last layer")
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    backbone, encoder, decoder = model["backbone"], model["encoder"], model["decoder"]
    lite = encoder["kind"] == "lite"
    backbone_config = hgnetv2.config_of(backbone)
    channels = hgnetv2.channels_of(backbone)
    wanted = {} if lite else {"fusion": ("elan-joint", "elan-short"), "merge": ("sum",), "channel_attention": ("none",)}
    if encoder["channels"] in channels:
        wanted["project"] = ("always",)
    for name, values in wanted.items():
        if encoder[name] not in values:
            raise InputError(f"transformers' deimv2 can't have encoder.{name} {encoder[name]!r}, only {values[0]!r}")
    num_levels = len(channels) + lite
    config: dict[str, Any] = {
        "model_type": "deimv2",
        "architectures": ["Deimv2ForObjectDetection"],
        "backbone_config": backbone_config,
        "encoder_type": encoder["kind"],
        "encoder_has_trailing_conv": lite or encoder["fusion"] != "elan-short",
        "encoder_in_channels": channels,
        "decoder_in_channels": [encoder["channels"]] * num_levels,
        "feat_strides": hgnetv2.strides_of(backbone),
        "encode_proj_layers": [num_levels - 1],
        "num_feature_levels": num_levels,
        "decoder_ffn_dim": 2 * decoder["hidden"],
        "decoder_n_points": list(decoder["points"]),
        "max_num_bins": decoder["bins"] - 1,
        "decoder_method": "discrete" if decoder["sampling"] == "discrete" else "default",
        "eval_idx": -1,
        **({"encoder_layers": 0} if lite else {}),
        **labels_of(classes),
        **_FIXED,
    }
    for place, (name, _) in _settings(lite).items():
        config[name] = model[place[0]] if len(place) == 1 else model[place[0]][place[1]]
    return config


def _settings(lite: bool) -> dict[tuple[str, ...], tuple[str, Any]]:
    return _SETTINGS if lite else _SETTINGS | _SETTINGS_OF_HYBRID
