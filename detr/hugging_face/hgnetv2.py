"""The backbone_config of transformers' HGNetV2, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from detr.errors import InputError


class _Lists(NamedTuple):
    stem: tuple[int, int]
    inner: tuple[int, ...]
    outer: tuple[int, ...]
    blocks: tuple[int, ...]
    layers: int  # convolutions of a block, in every stage
    kernel: int = 5  # of the light stages


_WIDE = (128, 512, 1024, 2048)
SIZES = {
    "Atto": _Lists((16, 16), (16, 32, 64), (64, 256, 256), (1, 1, 1), 3, 3),
    "Femto": _Lists((16, 16), (16, 32, 64), (64, 256, 512), (1, 1, 1), 3),
    "Pico": _Lists((16, 16), (16, 32, 64), (64, 256, 512), (1, 1, 2), 3),
    "B0": _Lists((16, 16), (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3),
    "B1": _Lists((24, 32), (32, 48, 96, 192), (64, 256, 512, 1024), (1, 1, 2, 1), 3),
    "B2": _Lists((24, 32), (32, 64, 128, 256), (96, 384, 768, 1536), (1, 1, 3, 1), 4),
    "B3": _Lists((24, 32), (32, 64, 128, 256), _WIDE, (1, 1, 3, 1), 5),
    "B4": _Lists((32, 48), (48, 96, 192, 384), _WIDE, (1, 1, 3, 1), 6),
    "B5": _Lists((32, 64), (64, 128, 256, 512), _WIDE, (1, 2, 5, 2), 6),
    "B6": _Lists((48, 96), (96, 192, 384, 768), (192, 512, 1024, 2048), (2, 3, 6, 3), 6),
}
_SAME = {"L": "B4", "X": "B5", "H": "B6"}  # the names that PaddleDetection has for them
_FIXED: dict[str, Any] = {"num_channels": 3, "hidden_act": "relu"}


def backbone_of(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The backbone section of a recipe; InputError for one that is no HGNetv2 of ours."""
    if config.get("model_type", "hgnet_v2") != "hgnet_v2":
        raise InputError(f"{source}: backbone {config['model_type']!r} is not supported, only 'hgnet_v2'")
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise InputError(f"{source}: backbone {name} {config[name]!r} is not supported, only {value!r}")
    given = {name: default if config.get(name) is None else config[name] for name, default in _lists("B4").items()}
    plain = {name: _plain(value) for name, value in given.items()}
    sizes = [size for size in SIZES if {name: _plain(value) for name, value in _lists(size).items()} == plain]
    if not sizes:
        blocks = list(given["stage_num_blocks"])
        raise InputError(f"{source}: an HGNetV2 of {blocks} blocks and these widths is none of {', '.join(SIZES)}")
    return {
        "kind": "hgnetv2",
        "size": sizes[0],
        "affine": config.get("use_learnable_affine_block", False),
        "stages": _stages(config, len(SIZES[sizes[0]].blocks)),
    }


def config_of(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone_config of a backbone section with every setting in it; InputError for other backbones."""
    if backbone["kind"] != "hgnetv2":
        raise InputError(f"transformers has this model on HGNetV2 only, not on {backbone['kind']}")
    lists = _lists(_SAME.get(backbone["size"], backbone["size"]))
    stages = list(backbone["stages"])
    return {
        "model_type": "hgnet_v2",
        **lists,
        "depths": lists["stage_num_blocks"],
        "hidden_sizes": lists["stage_out_channels"],
        "use_learnable_affine_block": backbone["affine"],
        "out_features": [f"stage{stage}" for stage in stages],
        "out_indices": stages,
        **_FIXED,
    }


def channels_of(backbone: Mapping[str, Any]) -> list[int]:
    """Of the levels that a backbone section gives out."""
    size = SIZES[_SAME.get(backbone["size"], backbone["size"])]
    return [size.outer[stage - 1] for stage in backbone["stages"]]


def strides_of(backbone: Mapping[str, Any]) -> list[int]:
    """Likewise."""
    return [2 ** (stage + 1) for stage in backbone["stages"]]


def _lists(size: str) -> dict[str, Any]:
    stem, inner, outer, blocks, layers, kernel = SIZES[size]
    count = len(blocks)
    light = [level > 1 for level in range(count)]
    return {
        "stem_channels": [3, *stem],
        "stage_in_channels": [stem[1], *outer[:-1]],
        "stage_mid_channels": list(inner),
        "stage_out_channels": list(outer),
        "stage_num_blocks": list(blocks),
        "stage_downsample": [level > 0 for level in range(count)],
        "stage_light_block": light,
        "stage_kernel_size": [kernel if each else 3 for each in light],
        "stage_numb_of_layers": [layers] * count,
    }


def _stages(config: Mapping[str, Any], count: int) -> list[int]:
    """By name or by number, 0 being the stem; the last stage where nothing is said."""
    if config.get("out_indices") is not None:
        return [index if index >= 0 else count + 1 + index for index in config["out_indices"]]
    if config.get("out_features") is not None:
        return [int(name.removeprefix("stage")) for name in config["out_features"]]
    return [count]


def _plain(value: Any) -> list[Any]:
    return [bool(each) if isinstance(each, bool) else int(each) for each in value]
