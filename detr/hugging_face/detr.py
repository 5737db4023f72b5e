"""config.json of Hugging Face's DETR, both ways.

The backbone is transformers' own ResNet or timm's. We write the first, which needs nothing installed, unless its last
stage is dilated, which it can't be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import Classes
from detr.errors import InputError
from detr.hugging_face.processor import labels_of
from detr.hugging_face.settings import Settings, read, require, written

TYPES = ("detr",)
"""The model types that are read here."""

PROCESSOR = "DetrImageProcessor"
"""What prepares images for them, and reads what they say."""

_DEPTHS = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
}
# What we don't vary: setting -> the one value, which is also the default.
_FIXED: dict[str, Any] = {
    "activation_function": "relu",
    "position_embedding_type": "sine",
    "num_channels": 3,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}
_FIXED_RESNET: dict[str, Any] = {
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
    "num_channels": 3,
}
_SETTINGS: Settings = {
    ("num_queries",): ("num_queries", 100),
    ("channels",): ("d_model", 256),
    ("dropout",): ("dropout", 0.1),
    ("encoder", "heads"): ("encoder_attention_heads", 8),
    ("encoder", "hidden"): ("encoder_ffn_dim", 2048),
    ("encoder", "num_layers"): ("encoder_layers", 6),
    ("decoder", "heads"): ("decoder_attention_heads", 8),
    ("decoder", "hidden"): ("decoder_ffn_dim", 2048),
    ("decoder", "num_layers"): ("decoder_layers", 6),
}


def model_of(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The model section of a recipe that a config.json amounts to.

    InputError names the first setting that our DETR does not vary.
    """
    require(config, _FIXED, source)
    model: dict[str, Any] = {
        "arch": "detr",
        "slots": "id",
        "backbone": {
            **backbone_of(config, source),
            "variant": "b",
            "stages": [4],
            "frozen_norms": True,
            "frozen_stages": 2,
        },
    }
    read(config, _SETTINGS, model)
    return model


def config_of(model: Mapping[str, Any], classes: Classes) -> dict[str, Any]:
    """The config.json of a model section with every setting in it; InputError for what transformers can't express."""
    config: dict[str, Any] = {
        "model_type": "detr",
        "architectures": ["DetrForObjectDetection"],
        **backbone_config_of(model["backbone"], stages=("stage4",)),
        **labels_of(classes, [int(id) for id in classes.ids] if model["slots"] == "id" else None),
        **_FIXED,
    }
    config |= written(model, _SETTINGS)
    # Theirs has these apart, where the paper's has one.
    return config | {"attention_dropout": model["dropout"], "activation_dropout": model["dropout"]}


def backbone_of(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Depth, width and dilation of the ResNet that a config.json describes, transformers' own or timm's."""
    own = config.get("backbone_config")
    if own is None or own.get("model_type") == "timm_backbone":
        return _timm_of(config, own or config, source)
    if own.get("model_type") != "resnet":
        raise InputError(f"{source}: a backbone of type {own.get('model_type')!r} is not supported, only 'resnet'")
    require(own, _FIXED_RESNET, source)
    kind, depths = own.get("layer_type", "bottleneck"), tuple(own.get("depths", (3, 4, 6, 3)))
    if (kind, depths) not in _DEPTHS:
        raise InputError(f"{source}: a backbone of {kind} blocks {depths} is none of ResNet {sorted(_DEPTHS.values())}")
    width, widths = own.get("embedding_size", 64), list(own.get("hidden_sizes", (256, 512, 1024, 2048)))
    expected = _widths(kind, width)
    if widths != expected:
        raise InputError(
            f"{source}: backbone hidden_sizes {widths} are not supported, only {expected} for width {width}"
        )
    if config.get("dilation", False):
        raise InputError(f"{source}: dilation is not supported with transformers' own ResNet, which ignores it")
    return {"depth": _DEPTHS[kind, depths], "width": width}


def backbone_config_of(backbone: Mapping[str, Any], *, stages: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a config.json that describe a ResNet, `stages` those whose maps are used."""
    if backbone["kind"] != "resnet" or backbone["variant"] != "b":
        what = backbone["kind"] + (f", variant {backbone['variant']}" if "variant" in backbone else "")
        raise InputError(f"a backbone of kind {what} can't be written for transformers; only resnet, variant b")
    if backbone["dilated_last"]:
        if backbone["width"] != 64:
            raise InputError(f"a dilated ResNet of width {backbone['width']} can't be written for transformers")
        name = f"resnet{backbone['depth']}"
        timm = {"use_timm_backbone": True, "use_pretrained_backbone": False}
        return {**timm, "backbone": name, "backbone_config": None, "dilation": True}
    found = [key for key, depth in _DEPTHS.items() if depth == backbone["depth"]]
    if not found:
        raise InputError(f"a ResNet of depth {backbone['depth']} can't be written for transformers")
    kind, depths = found[0]
    own = {
        "model_type": "resnet",
        "embedding_size": backbone["width"],
        "hidden_sizes": _widths(kind, backbone["width"]),
        "depths": list(depths),
        "layer_type": kind,
        "out_features": list(stages),
        **_FIXED_RESNET,
    }
    flags = {"use_timm_backbone": False, "use_pretrained_backbone": False, "dilation": False}
    return {"backbone_config": own, "backbone": None, **flags}


def _timm_of(config: Mapping[str, Any], named: Mapping[str, Any], source: str) -> dict[str, Any]:
    name = named.get("backbone") or "resnet50"
    known = {f"resnet{depth}": depth for depth in _DEPTHS.values()}
    if name not in known:
        raise InputError(f"{source}: backbone {name!r} is not supported, only {', '.join(known)}")
    dilated = bool(config.get("dilation", False)) or named.get("output_stride", 32) == 16
    return {"depth": known[name], "dilated_last": dilated}


def _widths(kind: str, width: int) -> list[int]:
    first = width * (4 if kind == "bottleneck" else 1)
    return [first * 2**level for level in range(4)]
