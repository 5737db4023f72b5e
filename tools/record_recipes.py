"""Record in tests/golden/recipes.json what the official settings files say, in the words of our recipes.

    python tools/record_recipes.py FOLDER

FOLDER has the official programs under rtdetr (lyuwenyu/RT-DETR), dfine (Peterande/D-FINE), deim (ShihuaHuang95/DEIM)
and deimv2 (Intellindust-AI-Lab/DEIMv2). DETR, Deformable DETR and DINO have their settings in programs and scripts.
What becomes of rates and decays, parameter by parameter, tools/record_optimizer_groups.py records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import yaml

from detr.config import merged

Tree = dict[str, Any]

RECORDED = Path(__file__).parent.parent / "tests" / "golden" / "recipes.json"
_DEPTHS = {"r18": "18vd", "r34": "34vd", "r50": "50vd", "r50m": "50vd_m", "r101": "101vd"}
_V2 = {"r18": "120e", "r34": "120e", "r50": "6x", "r50m": "7x", "r101": "6x"}
_DEIM = {"r18": "120e", "r34": "120e", "r50": "60e", "r50m": "60e", "r101": "60e"}
_LITTLE = ("atto", "femto", "pico", "n")
FILES = {
    **{
        f"rtdetr-{ours}": f"rtdetr/rtdetr_pytorch/configs/rtdetr/rtdetr_r{theirs}_6x_coco.yml"
        for ours, theirs in _DEPTHS.items()
    },
    **{
        f"rtdetrv2-{ours}": f"rtdetr/rtdetrv2_pytorch/configs/rtdetrv2/rtdetrv2_r{theirs}_{_V2[ours]}_coco.yml"
        for ours, theirs in _DEPTHS.items()
    },
    "rtdetrv2-r18-dsp": "rtdetr/rtdetrv2_pytorch/configs/rtdetrv2/rtdetrv2_r18vd_dsp_3x_coco.yml",
    **{f"dfine-{size}": f"dfine/configs/dfine/dfine_hgnetv2_{size}_coco.yml" for size in "nsmlx"},
    **{f"deim-dfine-{size}": f"deim/configs/deim_dfine/deim_hgnetv2_{size}_coco.yml" for size in "nsmlx"},
    **{
        f"deim-rtdetrv2-{ours}": f"deim/configs/deim_rtdetrv2/deim_r{theirs}_{_DEIM[ours]}_coco.yml"
        for ours, theirs in _DEPTHS.items()
    },
    **{f"deimv2-{size}": f"deimv2/configs/deimv2/deimv2_hgnetv2_{size}_coco.yml" for size in _LITTLE},
    **{f"deimv2-{size}": f"deimv2/configs/deimv2/deimv2_dinov3_{size}_coco.yml" for size in "smlx"},
}
"""Preset -> official file."""


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Record the settings that the official programs in FOLDER have."""
    rows = [f'"{preset}": {json.dumps(settings(read(folder / file)))}' for preset, file in FILES.items()]
    RECORDED.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def read(path: Path) -> Tree:
    """An official file with all that it includes."""
    own = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    tree: Tree = {}
    for file in own.pop("__include__", []):
        tree = merged(tree, read(path.parent / file))
    return merged(tree, own)


def settings(official: Tree) -> Tree:
    """Our settings under their dotted names."""
    loader = official["train_dataloader"]
    collate = loader["collate_fn"] if isinstance(loader["collate_fn"], dict) else {}
    epochs = official.get("epochs", official.get("epoches"))
    return {
        "train.epochs": epochs,
        "train.batch": loader.get("total_batch_size") or 4 * loader["batch_size"],  # the command is for four GPUs
        "train.clip": official["clip_max_norm"],
        "train.amp": "auto" if official["use_amp"] else "off",
        "train.average.decay": official["ema"]["decay"],
        "train.average.warmup": official["ema"]["warmups"],
        "train.optimizer.lr": official["optimizer"]["lr"],
        "train.optimizer.betas": official["optimizer"]["betas"],
        "train.optimizer.weight_decay": official["optimizer"]["weight_decay"],
        "train.scales": _scales(official, collate),
        **_schedule(official, epochs),
        **_second_stage(official, collate),
        **_augment(loader["dataset"]["transforms"], collate),
        **_model(official),
        **_criterion(official),
    }


def _second_stage(official: Tree, collate: Tree) -> Tree:
    """Not its decays of the average, which their programs don't read."""
    has_none = official["model"] == "RTDETR"
    return {"train.second_stage": None} if has_none else {"train.second_stage.epoch": collate["stop_epoch"]}


def _scales(official: Tree, collate: Tree) -> Any:
    own = collate.get("scales") or official.get("RTDETR", {}).get("multi_scale")
    return own or collate.get("base_size_repeat") or []


def _schedule(official: Tree, epochs: int) -> Tree:
    if "lrsheduler" not in official:
        warmup = official.get("lr_warmup_scheduler", {}).get("warmup_duration", 0)
        found: Tree = {"shape": "constant", "warmup": warmup, "rise": "linear"}
    else:
        found = {"shape": "constant", "warmup": official["warmup_iter"], "rise": "quadratic"}
        if official["lr_gamma"] != 1.0:
            found |= {"shape": "flat-cosine", "last": official["lr_gamma"]}
            found |= {"flat": round(official["flat_epoch"] / epochs, 6)}
            found |= {"end": round(official["no_aug_epoch"] / epochs, 6)}
    return {f"train.schedule.{name}": value for name, value in found.items()}


def _augment(transforms: Tree, collate: Tree) -> Tree:
    steps = {step["type"].removesuffix("es"): step for step in transforms["ops"]}
    start, flat, stop = _stages(transforms.get("policy"))
    side = steps["Resize"]["size"][0]
    found: Tree = {
        "start_epoch": start,
        "flat_epoch": flat,
        "stop_epoch": stop,
        "distort": steps["RandomPhotometricDistort"]["p"],
        "zoom_fill": steps["RandomZoomOut"]["fill"],
        "iou_crop": steps["RandomIoUCrop"]["p"],
        "min_size": steps["SanitizeBoundingBox"]["min_size"],
    }
    if "Mosaic" in steps:
        mosaic = steps["Mosaic"]
        found |= {
            "mosaic.probability": transforms["mosaic_prob"],
            "mosaic.size": mosaic["output_size"] / side,
            "mosaic.rotation": mosaic["rotation_range"],
            "mosaic.translation": mosaic["translation_range"][0],
            "mosaic.scale": mosaic["scaling_range"],
        }
    for ours, theirs in (("mixup", "mixup_prob"), ("copy_blend", "copyblend_prob")):
        found |= {f"{ours}.probability": collate[theirs]} if collate.get(theirs) else {ours: None}
    if collate.get("copyblend_prob"):
        is_short = collate["copyblend_epochs"] == [start, flat]
        found["copy_blend.until"] = "flat_epoch" if is_short else "stop_epoch"
        found["copy_blend.objects"], found["copy_blend.expand"] = collate["num_objects"], collate["expand_ratios"]
    result = {f"augment.{name}": value for name, value in found.items()}
    if "Normalize" in steps:
        result |= {f"model.input.{name}": steps["Normalize"][name] for name in ("mean", "std")}
    return result | {"model.input.height": side, "model.input.width": steps["Resize"]["size"][1]}


def _stages(policy: Tree | None) -> tuple[int, int | None, int | None]:
    """The epochs from which it is strong, no longer dense, and no longer strong."""
    if policy is None:
        return 0, None, None
    return tuple(policy["epoch"]) if isinstance(policy["epoch"], list) else (0, None, policy["epoch"])


def _model(official: Tree) -> Tree:
    parts = official[official["model"]]
    decoder, backbone = official[parts["decoder"]], official.get(parts["backbone"], {})
    result = {f"model.{name}": decoder[name] for name in ("num_queries", "num_denoising")}
    result["model.label_noise"] = decoder.get("label_noise_ratio", 0.5)
    result["model.box_noise"] = decoder.get("box_noise_scale", 1.0)
    if "freeze_at" in backbone:
        result["model.backbone.frozen_stages"] = backbone["freeze_at"] + 1
        result["model.backbone.frozen_norms"] = backbone["freeze_norm"]
    return result


def _criterion(official: Tree) -> Tree:
    given = official[official["criterion"]]
    weights, matcher, is_local = given["weight_dict"], given["matcher"], "local" in given["losses"]
    is_mal = "mal" in given["losses"]
    costs = matcher["weight_dict"]
    found = {
        "classification": "mal" if is_mal else "varifocal",
        "class_weight": weights["loss_mal" if is_mal else "loss_vfl"],
        "l1_weight": weights["loss_bbox"],
        "giou_weight": weights["loss_giou"],
        "fgl_weight": weights["loss_fgl"] if is_local else 0,
        "ddf_weight": weights["loss_ddf"] if is_local else 0,
        "gamma": given["gamma"],
        **({} if is_mal else {"alpha": given["alpha"]}),
        "union": given.get("use_uni_set", official["model"] != "RTDETR"),
        "matcher.class_cost": costs["cost_class"],
        "matcher.l1_cost": costs["cost_bbox"],
        "matcher.giou_cost": costs["cost_giou"],
        "matcher.alpha": matcher["alpha"],
        "matcher.gamma": matcher["gamma"],
        "matcher.by_overlap_from": matcher.get("matcher_change_epoch"),
    }
    return {f"criterion.{name}": value for name, value in found.items()}


if __name__ == "__main__":
    main()
