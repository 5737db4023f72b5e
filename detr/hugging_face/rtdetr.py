"""config.json of Hugging Face's RT-DETR, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import Classes
from detr.errors import InputError
from detr.hugging_face.processor import labels_of
from detr.hugging_face.settings import (
    ATTENTION,
    FEED_FORWARD,
    FIXED_HYBRID,
    HYBRID,
    read,
    require,
    require_ours,
    written,
)

_VERSIONS = {"rt_detr": 1, "rt_detr_v2": 2}
TYPES = tuple(_VERSIONS)
"""The model types that are read here."""

PROCESSOR = "RTDetrImageProcessor"
"""What prepares images for them, and reads what they say."""
_DEPTHS = {
    ("basic", (1, 1, 1, 1)): 10,
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
}
# What the authors' models never vary, and we don't either: setting -> the one value, which is also the default.
_FIXED = FIXED_HYBRID | {
    "encode_proj_layers": [2],
    "decoder_activation_function": "relu",
    "num_feature_levels": 3,
    "feat_strides": [8, 16, 32],
}
_FIXED_IN_VERSION_2: dict[str, Any] = {"decoder_n_levels": 3, "decoder_offset_scale": 0.5}
_FIXED_BACKBONE: dict[str, Any] = {
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
    "num_channels": 3,
}
_SETTINGS = HYBRID | ATTENTION | FEED_FORWARD
_OURS = {  # what our models vary and transformers' don't
    "slots": "index",
    "backbone.kind": "resnet",
    "backbone.variant": "d",
    "backbone.stages": [2, 3, 4],
    "backbone.dilated_last": False,
    "encoder.fusion": "csp",
    "encoder.merge": "concatenate",
    "encoder.project": "always",
    "encoder.channel_attention": "none",
    "decoder.activation": "relu",
    "decoder.position_layers": 2,
}


def model_of(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The model section of a recipe that a config.json amounts to.

    InputError names the first setting that our RT-DETR does not vary.
    """
    backbone = config.get("backbone_config") or {}
    require(config, _FIXED | _FIXED_IN_VERSION_2, source)
    require(backbone, _FIXED_BACKBONE, source)
    version = _VERSIONS[config["model_type"]]
    model: dict[str, Any] = {"arch": "rtdetr", "version": version, "backbone": _backbone_of(backbone, source)}
    read(config, _SETTINGS, model)
    points = config.get("decoder_n_points", 4)
    model["decoder"]["points"] = list(points) if isinstance(points, list | tuple) else [points] * 3
    if version == 2 and config.get("decoder_method", "default") == "discrete":
        model["decoder"]["sampling"] = "discrete"
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    require_ours(model, _OURS, next(name for name, number in _VERSIONS.items() if number == model["version"]))
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
        **labels_of(classes),
        **_FIXED,
    }
    if version == 2:
        config |= _FIXED_IN_VERSION_2
        config["decoder_method"] = "discrete" if decoder["sampling"] == "discrete" else "default"
    return config | written(model, _SETTINGS)


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
