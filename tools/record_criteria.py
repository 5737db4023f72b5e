"""Record in tests/golden/criteria.json what the official criteria make of small predictions and targets.

    python tools/record_criteria.py FOLDER

FOLDER has the official programs under detr (facebookresearch/detr), deformable_detr (Deformable-DETR of
fundamentalvision), dino (IDEA-Research/DINO), dfine (Peterande/D-FINE) and deimv2 (Intellindust-AI-Lab/DEIMv2).
Recorded are the weighted losses and the norm of the gradient of their sum by each part of the predictions, in float64.
"""

from __future__ import annotations

import importlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import click
import torch
import torchvision
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "golden"))
from criterion_case import BINS, CLASSES, FINE, LAYERS, Case, made

RECORDED = Path(__file__).parent.parent / "tests" / "golden" / "criteria.json"

WEIGHTS = {"loss_bbox": 5.0, "loss_giou": 2.0}
EDGES = {"loss_fgl": 0.15, "loss_ddf": 1.5}
MAL = {"classification": "mal", "gamma": 1.5}
CHANGING = {**MAL, "matcher": {"by_overlap_from": 5}}
USUAL, CROWD, NONE = {"counts": [3, 0, 2]}, {"counts": [14, 1, 0]}, {"counts": [0, 0]}
CASES: dict[str, dict[str, Any]] = {
    "DETR": {"arch": "detr", **USUAL},
    "DETR, more targets than queries": {"arch": "detr", **CROWD},
    "DETR, no targets": {"arch": "detr", **NONE},
    "Deformable DETR in two stages": {"arch": "deformable_detr", **USUAL},
    "Deformable DETR, more targets than queries": {"arch": "deformable_detr", **CROWD},
    "Deformable DETR, no targets": {"arch": "deformable_detr", **NONE},
    "DINO": {"arch": "dino", **USUAL, "denoising": 2},
    "DINO, more targets than queries": {"arch": "dino", **CROWD, "denoising": 1},
    "D-FINE": {"arch": "dfine", **USUAL},
    "D-FINE, denoising": {"arch": "dfine", **USUAL, "denoising": 2},
    "D-FINE, no targets": {"arch": "dfine", **NONE},
    "DEIM": {"arch": "deimv2", **USUAL, "denoising": 2},
    "DEIM, own matches only": {"arch": "deimv2", **USUAL, "denoising": 2, "criterion": MAL},
    "DEIM, own matches only, more targets than queries": {"arch": "deimv2", **CROWD, "denoising": 1, "criterion": MAL},
    "DEIMv2 before its matcher changes": {"arch": "deimv2", **USUAL, "criterion": CHANGING, "epoch": 4},
    "DEIMv2 after its matcher has changed": {"arch": "deimv2", **USUAL, "criterion": CHANGING, "epoch": 5},
}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Run the official criteria in FOLDER, each program in a process of its own."""
    rows = []
    for place, (name, case) in enumerate(CASES.items()):
        case = {**case, "queries": 12, "seed": 100 + place}
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            case |= process.submit(recorded, folder, case).result()
        rows.append(f"{json.dumps(name)}: {json.dumps(case)}")
        click.echo(f"{name}: {len(case['losses'])} losses, {len(case['gradients'])} gradients")
    RECORDED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def recorded(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Losses and gradients of one case."""
    given = made(case)
    arch = case["arch"]
    run = fine_losses if arch in FINE else old_losses
    weighted = run(folder / arch, given, case)
    sum(weighted.values()).backward()
    gradients = {name: part.grad.norm() for name, part in given.parts.items() if part.grad is not None}
    return {
        "losses": {name: float(f"{value:.12g}") for name, value in sorted(weighted.items()) if value},
        "gradients": {name: float(f"{norm:.12g}") for name, norm in gradients.items() if norm},
    }


def old_losses(root: Path, given: Case, case: dict[str, Any]) -> dict[str, Tensor]:
    """Of DETR, Deformable DETR or DINO."""
    arch = case["arch"]
    torchvision.__version__ = "0.9"  # some compare the first letters of it as a number
    Tensor.cuda = lambda self: self  # type: ignore[method-assign, assignment]
    sys.path.insert(0, str(root))
    package = "models.dino" if arch == "dino" else "models"
    place = root / package.replace(".", "/")
    _package("models", root / "models")
    _package(package, place)
    for part in (
        "backbone",
        "transformer",
        "deformable_transformer",
        "dn_components",
        *(["segmentation"] if arch == "detr" else []),
    ):
        _nothing(f"{package}.{part}")
    _nothing("models.registry")
    module = importlib.import_module(f"{package}.{arch}")
    matchers = importlib.import_module(f"{package}.matcher")
    output = _plain(given)
    if arch == "detr":
        matcher = matchers.HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2)
        weights = {"loss_ce": 1.0, **WEIGHTS}
        criterion = module.SetCriterion(CLASSES, matcher, weights, 0.1, ["labels", "boxes"]).double()
        criterion.empty_weight[-1] = 0.1  # not its float32
    else:
        matcher = matchers.HungarianMatcher(cost_class=2, cost_bbox=5, cost_giou=2)
        weights = {"loss_ce": 2.0 if arch == "deformable_detr" else 1.0, **WEIGHTS}
        criterion = module.SetCriterion(CLASSES, matcher, weights, losses=["labels", "boxes"], focal_alpha=0.25)
    proposals = given.output.proposals
    if arch == "deformable_detr":
        output["enc_outputs"] = _said(proposals)
    if arch == "dino":
        output["interm_outputs"] = _said(proposals)
        output["dn_meta"] = _dino_noised(given)
    losses = criterion(output, _targets(given))
    factor = {name: weights.get("_".join(name.split("_")[:2])) for name in losses}
    return {name: value * factor[name] for name, value in losses.items() if factor[name] is not None}


def _dino_noised(given: Case) -> dict[str, Any]:
    denoising = given.output.denoising
    assert denoising is not None
    *auxiliary, last = denoising.layers
    known = {**_said(last), "aux_outputs": [_said(layer) for layer in auxiliary]}
    return {"output_known_lbs_bboxes": known, "num_dn_group": denoising.num_groups, "pad_size": last.logits.shape[1]}


def fine_losses(root: Path, given: Case, case: dict[str, Any]) -> dict[str, Tensor]:
    """Of D-FINE, or of DEIM and DEIMv2, which have one program."""
    Tensor.float = Tensor.double  # type: ignore[method-assign, assignment]  # it casts in the middle
    top, room = ("src", "src.zoo.dfine") if case["arch"] == "dfine" else ("engine", "engine.deim")
    sys.path.insert(0, str(root))
    for name in ("", ".zoo", ".zoo.dfine", ".deim", ".misc"):
        _package(f"{top}{name}", root / f"{top}{name}".replace(".", "/"))
    sys.modules[f"{top}.core"] = ModuleType(f"{top}.core")
    sys.modules[f"{top}.core"].register = lambda *_: lambda kind: kind  # type: ignore[attr-defined]
    alone = ModuleType(f"{top}.misc.dist_utils")
    alone.get_world_size, alone.is_dist_available_and_initialized = lambda: 1, lambda: False  # type: ignore[attr-defined]
    sys.modules[f"{top}.misc.dist_utils"] = alone
    matchers = importlib.import_module(f"{room}.matcher")
    settings = case.get("criterion")
    costs = {"weight_dict": {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2}, "use_focal_loss": True}
    if case["arch"] == "dfine":
        criterion = importlib.import_module(f"{room}.dfine_criterion").DFINECriterion(
            matchers.HungarianMatcher(**costs),
            {"loss_vfl": 1.0, **WEIGHTS, **EDGES},
            ["vfl", "boxes", "local"],
            alpha=0.75,
            gamma=2.0,
            num_classes=CLASSES,
            reg_max=BINS - 1,
        )
        return criterion(_fine_output(given), _targets(given))
    change = (settings or {}).get("matcher", {}).get("by_overlap_from")
    if change is not None:
        costs |= {"change_matcher": True, "iou_order_alpha": 4.0, "matcher_change_epoch": change}
    criterion = importlib.import_module(f"{room}.deim_criterion").DEIMCriterion(
        matchers.HungarianMatcher(**costs),
        {"loss_mal": 1.0, **WEIGHTS, **EDGES},
        ["mal", "boxes"] if settings else ["mal", "boxes", "local"],
        gamma=1.5,
        num_classes=CLASSES,
        reg_max=BINS - 1,
        use_uni_set=not settings,
    )
    return criterion(_fine_output(given), _targets(given), epoch=case.get("epoch", 0))


def _fine_output(given: Case) -> dict[str, Any]:
    output, scale = (
        given.output,
        {"up": torch.tensor([0.5], dtype=torch.float64), "reg_scale": torch.tensor([4.0]).double()},
    )
    *auxiliary, last = output.layers
    result = {
        **_edged(last),
        **scale,
        "aux_outputs": [_taught(layer, last) for layer in auxiliary],
        "pre_outputs": _said(output.start),
        "enc_aux_outputs": [_said(output.proposals)],
        "enc_meta": {"class_agnostic": False},
    }
    noised = output.denoising
    if noised is not None:
        result["dn_outputs"] = [_taught(layer, noised.layers[-1]) for layer in noised.layers]
        result["dn_pre_outputs"] = _said(noised.start)
        result["dn_meta"] = {"dn_positive_idx": list(noised.queries), "dn_num_group": noised.num_groups}
    return result


def _plain(given: Case) -> dict[str, Any]:
    *auxiliary, last = given.output.layers
    assert len(auxiliary) == LAYERS - 1
    return {**_said(last), "aux_outputs": [_said(layer) for layer in auxiliary]}


def _said(predictions: Any) -> dict[str, Tensor]:
    return {"pred_logits": predictions.logits, "pred_boxes": predictions.boxes}


def _edged(predictions: Any) -> dict[str, Tensor]:
    edges = predictions.edges
    return {**_said(predictions), "pred_corners": edges.logits.flatten(2), "ref_points": edges.start}


def _taught(predictions: Any, teacher: Any) -> dict[str, Tensor]:
    corners = teacher.edges.logits.flatten(2)
    return {**_edged(predictions), "teacher_corners": corners, "teacher_logits": teacher.logits}


def _targets(given: Case) -> list[dict[str, Tensor]]:
    return [{"labels": target.labels, "boxes": target.boxes} for target in given.targets]


def _package(name: str, folder: Path) -> None:
    """A package whose modules are found, but that doesn't run its own start."""
    module = ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def _nothing(name: str) -> None:
    """A module that has every name and no content."""
    sys.modules[name] = MagicMock()


if __name__ == "__main__":
    main()
