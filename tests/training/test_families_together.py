"""Every family in one process and in two: the same losses, and no step that one of the two waits for in vain."""

import json
import math
from pathlib import Path

import pytest

from tests import programs

PROGRAM = Path(__file__).parent / "families_together.py"
PRESETS = {
    "detr": "detr-r50",
    "deformable-detr": "deformable-detr-r50-two-stage",
    "dino": "dino-r50-4scale",
    "rtdetr": "rtdetrv2-r18",
    "dfine": "dfine-n",
    "deim": "deimv2-n",
}
STEPS = 6


def recipe(model, *, precise):
    """`precise`: without what is drawn for each process by itself, in float64, where rounding changes no matching."""
    tree = model.model_dump(mode="json")
    tree["input"] |= {"height": 64, "width": 64}
    if precise and "num_denoising" in tree:
        tree["num_denoising"] = 0
    tree["backbone"] |= {name: value for name, value in {"depth": 10, "width": 8}.items() if name in tree["backbone"]}
    for part in (tree, tree.get("encoder") or {}, tree.get("decoder") or {}):
        part.update({name: 0.0 for name in part if "dropout" in name})
    schedule = {"warmup": 0}
    return {"model": tree, "train": {"batch": 4, "schedule": schedule, "average": {"decay": 0.9, "warmup": 0}}}


def losses_of(out, recipes, size):
    for done in programs.run_team(PROGRAM, out, json.dumps(recipes), size=size):
        assert done.returncode == 0, done.stderr
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def models(smaller):
    return {family: smaller(name, num_layers=2) for family, name in PRESETS.items()}


@pytest.fixture(scope="module")
def one(models, tmp_path_factory):
    recipes = {family: (recipe(model, precise=True), True) for family, model in models.items()}
    return losses_of(tmp_path_factory.mktemp("one"), recipes, 1)


@pytest.fixture(scope="module")
def two(models, tmp_path_factory):
    recipes = {family: (recipe(model, precise=True), True) for family, model in models.items()}
    recipes |= {f"{family} as it is": (recipe(model, precise=False), False) for family, model in models.items()}
    return losses_of(tmp_path_factory.mktemp("two"), recipes, 2)


@pytest.mark.parametrize("family", PRESETS)
def test_the_same_batches_give_the_same_losses_in_one_process_and_in_two(one, two, family):
    """Each step's losses depend on the gradients of all steps before."""
    (alone,), (first, second) = one, two
    assert first[family]["digest"] == second[family]["digest"]
    assert alone[family]["losses"].keys() == first[family]["losses"].keys() and len(alone[family]["losses"]) == STEPS
    for name, losses in alone[family]["losses"].items():
        for loss, value in losses.items():
            mean = (first[family]["losses"][name][loss] + second[family]["losses"][name][loss]) / 2
            # Officially a process counts at least one box: without any, one process counts one, and two count two.
            counted = family != "detr" and "ddf" not in loss
            mean *= 2 if name == "no box at all" and counted else 1
            assert mean == pytest.approx(value, rel=1e-6, abs=1e-9), (name, loss)


@pytest.mark.parametrize("family", PRESETS)
def test_no_batch_however_odd_stops_two_processes_or_parts_them(two, family):
    """As the family is, with denoising and norms that learn: no box, too many, on the border."""
    first, second = (each[f"{family} as it is"] for each in two)
    assert first["digest"] == second["digest"] and first["skipped"] == second["skipped"] == 0
    for losses in (*first["losses"].values(), *second["losses"].values()):
        assert losses and all(math.isfinite(value) for value in losses.values())
    nothing = first["losses"]["no box at all"]
    assert nothing["loss_bbox"] == nothing["loss_giou"] == 0 and max(nothing.values()) > 0
