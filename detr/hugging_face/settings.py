"""Settings that a config.json and a model section of ours both have, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.errors import InputError

Settings = dict[tuple[str, ...], tuple[str, Any]]
"""Ours, as (section, setting) or (setting,), -> theirs with its default."""

# Of the models with a hybrid encoder: what they share of the settings, and what their authors never vary and we don't.
HYBRID: Settings = {
    ("num_queries",): ("num_queries", 300),
    ("num_denoising",): ("num_denoising", 100),
    ("label_noise",): ("label_noise_ratio", 0.5),
    ("box_noise",): ("box_noise_scale", 1.0),
    ("encoder", "channels"): ("encoder_hidden_dim", 256),
    ("encoder", "expansion"): ("hidden_expansion", 1.0),
    ("decoder", "channels"): ("d_model", 256),
    ("decoder", "heads"): ("decoder_attention_heads", 8),
    ("decoder", "num_layers"): ("decoder_layers", 6),
    ("backbone", "frozen_norms"): ("freeze_backbone_batch_norms", True),
}
ATTENTION: Settings = {
    ("encoder", "heads"): ("encoder_attention_heads", 8),
    ("encoder", "hidden"): ("encoder_ffn_dim", 1024),
    ("encoder", "num_layers"): ("encoder_layers", 1),
}
FEED_FORWARD: Settings = {("decoder", "hidden"): ("decoder_ffn_dim", 1024)}
FINE_GRAINED: Settings = {
    ("encoder", "depth"): ("depth_mult", 1.0),
    ("decoder", "scale"): ("reg_scale", 4.0),
    ("decoder", "up"): ("up", 0.5),
}
FIXED_HYBRID: dict[str, Any] = {
    "positional_encoding_temperature": 10000,
    "encoder_activation_function": "gelu",
    "activation_function": "silu",
    "normalize_before": False,
    "learn_initial_query": False,
    "with_box_refine": True,
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
}
FIXED_FINE_GRAINED: dict[str, Any] = {
    "layer_scale": 1,
    "top_prob_values": 4,
    "lqe_hidden_dim": 64,
    "lqe_layers": 2,
    "decoder_offset_scale": 0.5,
}


def require(settings: Mapping[str, Any], fixed: Mapping[str, Any], source: str) -> None:
    """InputError for the first setting that has not the one value we have; a value that isn't there is that value."""
    for name, value in fixed.items():
        given = settings.get(name, value)
        if given != value:
            raise InputError(f"{source}: {name} {given!r} is not supported, only {value!r}")


def require_ours(model: Mapping[str, Any], fixed: Mapping[str, Any], name: str) -> None:
    """InputError for the first setting of a model section, `setting` or `section.setting`, that `name` has not."""
    for place, value in fixed.items():
        given: Any = model
        for part in place.split("."):
            given = given[part]
        if given != value:
            raise InputError(f"transformers' {name} can't have {place} {given!r}, only {value!r}")


def read(config: Mapping[str, Any], settings: Settings, model: dict[str, Any]) -> None:
    """Add to a model section what a config.json says of `settings`."""
    for place, (name, default) in settings.items():
        section = model.setdefault(place[0], {}) if len(place) == 2 else model
        section[place[-1]] = config.get(name, default)


def written(model: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The way back."""
    return {
        name: model[place[0]] if len(place) == 1 else model[place[0]][place[1]] for place, (name, _) in settings.items()
    }


def read_distributions(config: Mapping[str, Any], decoder: dict[str, Any], *, num_levels: int, source: str) -> None:
    """Add to a decoder section what D-FINE and DEIMv2 say of points and bins."""
    points = config.get("decoder_n_points", 4)
    decoder["points"] = list(points) if isinstance(points, list | tuple) else [points] * num_levels
    decoder["bins"] = config.get("max_num_bins", 32) + 1
    decoder["sampling"] = "discrete" if config.get("decoder_method", "default") == "discrete" else "bilinear"
    if config.get("eval_idx", -1) not in (-1, decoder["num_layers"] - 1):
        raise InputError(f"{source}: eval_idx {config['eval_idx']} is not supported, only -1, the last layer")


def written_distributions(decoder: Mapping[str, Any]) -> dict[str, Any]:
    """The way back."""
    return {
        "decoder_n_points": list(decoder["points"]),
        "max_num_bins": decoder["bins"] - 1,
        "decoder_method": "discrete" if decoder["sampling"] == "discrete" else "default",
        "eval_idx": -1,
    }
