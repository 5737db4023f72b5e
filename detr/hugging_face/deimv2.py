"""config.json of Hugging Face's DEIMv2, both ways; detr/convert/deimv2_hf.py says what transformers does otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import Classes
from detr.errors import InputError
from detr.hugging_face import hgnetv2
from detr.hugging_face.processor import labels_of
from detr.hugging_face.settings import (
    ATTENTION,
    FINE_GRAINED,
    FIXED_FINE_GRAINED,
    FIXED_HYBRID,
    HYBRID,
    Settings,
    read,
    read_distributions,
    require,
    require_ours,
    written,
    written_distributions,
)

TYPES = ("deimv2",)
"""The model types that are read here."""

PROCESSOR = "RTDetrImageProcessor"
"""What prepares images for them, and reads what they say."""

NOTE = (
    "transformers' DEIMv2 embeds and norms the memory before queries are selected, which the authors' doesn't: "
    "with these weights it finds much less than the authors' code or ours"
)
"""What to know of the folder that is written."""

_FIXED = FIXED_HYBRID | FIXED_FINE_GRAINED | {"decoder_activation_function": "silu", "encoder_fuse_op": "sum"}
_DEFAULTS = {"decoder_activation_function": "relu"}
"""What transformers takes where a file doesn't say, if that is another value."""

_SETTINGS = HYBRID | FINE_GRAINED | {("gated",): ("use_gateway", True), ("shared_boxes",): ("share_bbox_head", False)}


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
    require({**_DEFAULTS, **config}, fixed, source)
    read(config, _settings(lite), model)
    if lite == (not model["shared_boxes"]):
        raise InputError(f"{source}: share_bbox_head {model['shared_boxes']} goes with the other encoder_type only")
    model["decoder"]["hidden"] = config.get("decoder_ffn_dim", 1024) // 2
    read_distributions(config, model["decoder"], num_levels=num_levels, source=source)
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    require_ours(model, {"slots": "index"}, "deimv2")
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
        **written_distributions(decoder),
        **({"encoder_layers": 0} if lite else {}),
        **labels_of(classes),
        **_FIXED,
    }
    return config | written(model, _settings(lite))


def _settings(lite: bool) -> Settings:
    return _SETTINGS if lite else _SETTINGS | ATTENTION
