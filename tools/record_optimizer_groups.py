"""Record the official optimizer groups in a compact form.

    record_optimizer_groups.py FOLDER... > tests/golden/optimizer_groups.json

The folders hold `NAME.optim.json`, the groups of the official programs, each with its rate, decay and names; or, where
there is none, `NAME.keys.json`, the official names, to which the official rules are applied that are written down here.
Groups with the same rate and decay are one to an optimizer, so they are joined.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

RESNETS = {"r18": "r18vd", "r34": "r34vd", "r50": "r50vd", "r50m": "r50vd_m", "r101": "r101vd"}
_FAMILIES = {
    "rtdetr": ("rtdetr", RESNETS),
    "rtdetrv2": ("rtdetrv2", RESNETS | {"r18-dsp": "r18vd_dsp"}),
    "deim-rtdetrv2": ("deim_rtdetrv2", RESNETS),
    "dfine": ("dfine", {size: size for size in "nsmlx"}),
    "deim-dfine": ("deim_hgnetv2", {size: size for size in "nsmlx"}),
}
RECORDED = {
    f"{ours}-{size}": f"{theirs}_{official}"
    for ours, (theirs, sizes) in _FAMILIES.items()
    for size, official in sizes.items()
}
"""Preset -> official name, where the official program's groups were written down."""

_DETR = {"lr": 1e-4, "decay": 1e-4, "groups": [(r"backbone", {"lr": 1e-5})]}
_DEFORMABLE = {
    "lr": 2e-4,
    "decay": 1e-4,
    "groups": [(r"backbone\.0", {"lr": 2e-5}), (r"reference_points|sampling_offsets", {"lr": 2e-5})],
}


def _deimv2(lr, backbone_lr, fine):
    backbone = {"lr": backbone_lr}
    return {
        "lr": lr,
        "decay": 1e-4,
        "groups": [
            (r"^(?=.*backbone)(?!.*norm|bn).*$", backbone),
            (r"^(?=.*backbone)(?=.*norm|bn).*$", backbone | {"decay": 0.0}),
            (rf"^(?=.*(?:encoder|decoder))(?=.*(?:{fine})).*$", {"decay": 0.0}),
        ],
    }


RULES = {
    "detr-r50": ("detr_resnet50", _DETR),
    "detr-r50-dc5": ("detr_resnet50_dc5", _DETR),
    "detr-r101": ("detr_resnet101", _DETR),
    "deformable-detr-r50": ("r50_deformable_detr", _DEFORMABLE),
    "deformable-detr-r50-refine": ("r50_deformable_detr_plus_iterative_bbox_refinement", _DEFORMABLE),
    "deformable-detr-r50-two-stage": (
        "r50_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage",
        _DEFORMABLE,
    ),
    "dino-r50-4scale": ("dino_4scale_r50", _DETR),
    "dino-r50-5scale": ("dino_5scale_r50", _DETR),
    "deimv2-atto": ("deimv2_hgnetv2_atto", _deimv2(2e-3, 1e-3, "norm|bn")),
    "deimv2-femto": ("deimv2_hgnetv2_femto", _deimv2(1.6e-3, 8e-4, "norm|bn|bias")),
    "deimv2-pico": ("deimv2_hgnetv2_pico", _deimv2(1.6e-3, 8e-4, "norm|bn|bias")),
    "deimv2-n": ("deimv2_hgnetv2_n", _deimv2(8e-4, 4e-4, "norm|bn|bias")),
}
"""Preset -> official name and rule: a parameter is of the first group whose pattern is in its name, or of the rest.

DEIMv2-S to X are left out: there the official patterns miss the biases of three norms, which ours don't decay."""

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "num_points_scale")


def digest(names):
    """The SHA-256 of sorted names, a line each."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def recorded_groups(path):
    for group in json.loads(path.read_text())["groups"]:
        yield group["lr"], group["weight_decay"], group["names"]


def groups_by_rule(path, rule):
    for name in learnable_names(json.loads(path.read_text())):
        found = next((values for pattern, values in rule["groups"] if re.findall(pattern, name)), {})
        yield found.get("lr", rule["lr"]), found.get("decay", rule["decay"]), [name]


def learnable_names(document):
    """Names of the parameters that learn, second names included."""
    if "entries" in document:
        entries = (entry for entry in document["entries"] if entry["kind"] == "parameter" and entry["trainable"])
        return [entry["name"] for entry in entries]
    frozen = {
        name for group in document["shared_tensors"] for name in group if group[0] in document["frozen_parameters"]
    }
    return [
        entry["name"]
        for entry in document["keys"]
        if not (entry["derived"] or entry["name"] in frozen or entry["name"].endswith(_BUFFERS))
    ]


def joined(groups):
    result = {}
    for lr, decay, names in groups:
        result.setdefault((lr, decay), []).extend(names)
    return [
        {"lr": lr, "weight_decay": decay, "tensors": len(names), "sha256": digest(names)}
        for (lr, decay), names in sorted(result.items())
        if names
    ]


def found(name, folders):
    return next(folder / name for folder in folders if (folder / name).is_file())


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:]]
    result = {ours: joined(recorded_groups(found(f"{name}.optim.json", folders))) for ours, name in RECORDED.items()}
    for ours, (name, rule) in RULES.items():
        result[ours] = joined(groups_by_rule(found(f"{name}.keys.json", folders), rule))
    json.dump(result, sys.stdout, indent=1)
    print()
