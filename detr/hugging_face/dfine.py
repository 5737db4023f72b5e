"""config.json of Hugging Face's D-FINE, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import Classes
from detr.hugging_face import hgnetv2
from detr.hugging_face.processor import labels_of
from detr.hugging_face.settings import (
    ATTENTION,
    FEED_FORWARD,
    FINE_GRAINED,
    FIXED_FINE_GRAINED,
    FIXED_HYBRID,
    HYBRID,
    read,
    read_distributions,
    require,
    require_ours,
    written,
    written_distributions,
)

TYPES = ("d_fine",)
"""The model types that are read here."""

PROCESSOR = "RTDetrImageProcessor"
"""What prepares images for them, and reads what they say."""

_FIXED = FIXED_HYBRID | FIXED_FINE_GRAINED | {"decoder_activation_function": "relu"}
_SETTINGS = HYBRID | ATTENTION | FEED_FORWARD | FINE_GRAINED
_OURS = {  # what our models vary and transformers' don't
    "slots": "index",
    "encoder.fusion": "elan",
    "encoder.merge": "concatenate",
    "encoder.project": "always",
    "encoder.channel_attention": "none",
    "decoder.activation": "relu",  # transformers can't change that of the heads
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
    require(config, fixed, source)
    read(config, _SETTINGS, model)
    read_distributions(config, model["decoder"], num_levels=num_levels, source=source)
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    require_ours(model, _OURS, "d_fine")
    backbone, encoder, decoder = model["backbone"], model["encoder"], model["decoder"]
    backbone_config, channels = hgnetv2.config_of(backbone), hgnetv2.channels_of(backbone)
    config: dict[str, Any] = {
        "model_type": "d_fine",
        "architectures": ["DFineForObjectDetection"],
        "backbone_config": backbone_config,
        "encoder_in_channels": channels,
        "decoder_in_channels": [encoder["channels"]] * len(channels),
        "feat_strides": hgnetv2.strides_of(backbone),
        "encode_proj_layers": [len(channels) - 1],
        "num_feature_levels": len(channels),
        **written_distributions(decoder),
        **labels_of(classes),
        **_FIXED,
    }
    return config | written(model, _SETTINGS)
