"""config.json of Hugging Face's D-FINE, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import Classes
from detr.errors import InputError
from detr.hugging_face import hgnetv2
from detr.hugging_face.processor import labels_of

TYPES = ("d_fine",)
"""The model types that are read here."""

# What the authors' models never vary, and we don't either: setting -> the one value, which is also the default.
_FIXED: dict[str, Any] = {
    "positional_encoding_temperature": 10000,
    "encoder_activation_function": "gelu",
    "activation_function": "silu",
    "decoder_activation_function": "relu",
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
    ("encoder", "depth"): ("depth_mult", 1.0),
    ("decoder", "channels"): ("d_model", 256),
    ("decoder", "heads"): ("decoder_attention_heads", 8),
    ("decoder", "hidden"): ("decoder_ffn_dim", 1024),
    ("decoder", "num_layers"): ("decoder_layers", 6),
    ("decoder", "scale"): ("reg_scale", 4.0),
    ("decoder", "up"): ("up", 0.5),
    ("backbone", "frozen_norms"): ("freeze_backbone_batch_norms", True),
}


def model_of(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The model section of a recipe that a config.json amounts to.

    InputError names the first setting that our D-FINE does not vary.
    """
    model: dict[str, Any] = {
        "arch": "dfine",
        "backbone": hgnetv2.backbone_of(config.get("backbone_config") or {"out_indices": [2, 3, 4]}, source),
        "encoder": {"fusion": "elan"},
    }
    num_levels = len(model["backbone"]["stages"])
    fixed = _FIXED | {
        "encode_proj_layers": [num_levels - 1],
        "num_feature_levels": num_levels,
        "feat_strides": hgnetv2.strides_of(model["backbone"]),
    }
    for name, value in fixed.items():
        given = config.get(name, value)
        if given != value:
            raise InputError(f"{source}: {name} {given!r} is not supported, only {value!r}")
    for place, (name, default) in _SETTINGS.items():
        section = model.setdefault(place[0], {}) if len(place) == 2 else model
        section[place[-1]] = config.get(name, default)
    decoder, points = model["decoder"], config.get("decoder_n_points", 4)
    decoder["points"] = list(points) if isinstance(points, list | tuple) else [points] * num_levels
    decoder["bins"] = config.get("max_num_bins", 32) + 1
    decoder["sampling"] = "discrete" if config.get("decoder_method", "default") == "discrete" else "bilinear"
    if config.get("eval_idx", -1) not in (-1, decoder["num_layers"] - 1):
        raise InputError(f"{source}: eval_idx {config['eval_idx']} is not supported, only -1, the last layer")
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    backbone, encoder, decoder = model["backbone"], model["encoder"], model["decoder"]
    wanted = {
        "encoder.fusion": (encoder["fusion"], "elan"),
        "encoder.merge": (encoder["merge"], "concatenate"),
        "encoder.project": (encoder["project"], "always"),
        "encoder.channel_attention": (encoder["channel_attention"], "none"),
        "decoder.activation": (decoder["activation"], "relu"),  # transformers can't change that of the heads
    }
    for name, (given, value) in wanted.items():
        if given != value:
            raise InputError(f"transformers' d_fine can't have {name} {given!r}, only {value!r}")
    num_levels = len(backbone["stages"]) if backbone["kind"] == "hgnetv2" else 0
    config: dict[str, Any] = {
        "model_type": "d_fine",
        "architectures": ["DFineForObjectDetection"],
        "backbone_config": hgnetv2.config_of(backbone),
        "encoder_in_channels": hgnetv2.channels_of(backbone),
        "decoder_in_channels": [encoder["channels"]] * num_levels,
        "feat_strides": hgnetv2.strides_of(backbone),
        "encode_proj_layers": [num_levels - 1],
        "num_feature_levels": num_levels,
        "decoder_n_points": list(decoder["points"]),
        "max_num_bins": decoder["bins"] - 1,
        "decoder_method": "discrete" if decoder["sampling"] == "discrete" else "default",
        "eval_idx": -1,
        **labels_of(classes),
        **_FIXED,
    }
    for place, (name, _) in _SETTINGS.items():
        config[name] = model[place[0]] if len(place) == 1 else model[place[0]][place[1]]
    return config
