"""config.json of Hugging Face's Deformable DETR, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import Classes
from detr.errors import InputError
from detr.hugging_face.detr import backbone_config_of, backbone_of
from detr.hugging_face.processor import labels_of
from detr.hugging_face.settings import Settings, read, require, written

TYPES = ("deformable_detr",)
"""The model types that are read here."""

PROCESSOR = "DeformableDetrImageProcessor"
"""What prepares images for them, and reads what they say."""

# What we don't vary: setting -> the one value, which is also the default.
_FIXED: dict[str, Any] = {
    "activation_function": "relu",
    "position_embedding_type": "sine",
    "num_channels": 3,
    "encoder_layerdrop": 0.0,
    "dilation": False,
}
_SETTINGS: Settings = {
    ("refine",): ("with_box_refine", False),
    ("two_stage",): ("two_stage", False),
    ("encoder", "channels"): ("d_model", 256),
    ("encoder", "levels"): ("num_feature_levels", 4),
    ("encoder", "heads"): ("encoder_attention_heads", 8),
    ("encoder", "hidden"): ("encoder_ffn_dim", 1024),
    ("encoder", "num_layers"): ("encoder_layers", 6),
    ("encoder", "points"): ("encoder_n_points", 4),
    ("encoder", "dropout"): ("dropout", 0.1),
    ("decoder", "heads"): ("decoder_attention_heads", 8),
    ("decoder", "hidden"): ("decoder_ffn_dim", 1024),
    ("decoder", "num_layers"): ("decoder_layers", 6),
    ("decoder", "points"): ("decoder_n_points", 4),
    ("decoder", "dropout"): ("dropout", 0.1),
}
_STAGES = (2, 3, 4)
_PLACES = {"temperature": 10_000, "position_offset": -0.5}  # theirs has no setting for them


def model_of(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The model section of a recipe that a config.json amounts to.

    InputError names the first setting that our Deformable DETR does not vary.
    """
    require(config, _FIXED, source)
    if config.get("num_feature_levels", 4) < len(_STAGES):
        given = config["num_feature_levels"]
        raise InputError(f"{source}: num_feature_levels {given} is not supported, only {len(_STAGES)} or more")
    backbone = {**backbone_of(config, source), "variant": "b", "stages": list(_STAGES)}
    model: dict[str, Any] = {
        "arch": "deformable_detr",
        "slots": "id",
        "num_queries": config.get(_queries_of(config.get("two_stage", False)), 300),
        "backbone": {**backbone, "frozen_norms": True, "frozen_stages": 2},
    }
    read(config, _SETTINGS, model)
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    encoder, decoder, backbone = model["encoder"], model["decoder"], model["backbone"]
    for name, value in _PLACES.items():
        if encoder[name] != value:
            raise InputError(f"encoder.{name} {encoder[name]} can't be written for transformers, which has {value}")
    if encoder["dropout"] != decoder["dropout"]:
        raise InputError("transformers has one dropout for encoder and decoder")
    if tuple(backbone.get("stages", ())) != _STAGES or backbone.get("dilated_last"):
        raise InputError(f"transformers' Deformable DETR takes the stages {_STAGES} of a ResNet that isn't dilated")
    config: dict[str, Any] = {
        "model_type": "deformable_detr",
        "architectures": ["DeformableDetrForObjectDetection"],
        **backbone_config_of(backbone, stages=tuple(f"stage{number}" for number in _STAGES)),
        **labels_of(classes, [int(id) for id in classes.ids] if model["slots"] == "id" else None),
        **_FIXED,
    }
    config |= written(model, _SETTINGS)
    config[_queries_of(model["two_stage"])] = model["num_queries"]
    # Theirs has these apart, where the paper's has one.
    return config | {"attention_dropout": encoder["dropout"], "activation_dropout": encoder["dropout"]}


def _queries_of(two_stage: bool) -> str:
    return "two_stage_num_proposals" if two_stage else "num_queries"
