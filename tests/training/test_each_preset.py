import json
import math
from typing import Any

import pytest
import torch

from detr.backbones.hgnetv2 import SIZES
from detr.classes import Classes
from detr.config import recipe_names, validated
from detr.criterion import criterion_for
from detr.models import build_model, load_model
from detr.models.presets import MODELS
from detr.records import Target
from detr.training import step as stepping
from detr.training.learning.optimizer import build_optimizer, groups_by_role
from detr.training.recipe import Recipe, at_size, load_recipe
from detr.training.told.journal import read
from detr.training.train import train

SMALL = {"channels": 32, "hidden": 32, "out": 32, "detail": 8, "heads": 4, "num_queries": 12, "num_denoising": 6}
AT_MOST = {"num_layers": 2, "eval_layers": 2, "expansion": 0.5}
DEPTHS = {18: 10, 34: 10, 101: 50}


def toy(name: str) -> Recipe:
    """The recipe with the same parts and switches, of a few channels, for inputs of 64 pixels and 3 steps of 2 images.

    What would happen in a later epoch happens after the only one, but for mosaics and the like, which begin at once.
    """
    tree = at_size(load_recipe(name), 64).as_tree()
    augment, train = tree["augment"], tree["train"]
    tree["model"] = {key: smaller(key, value) for key, value in tree["model"].items()}
    augment |= {key: value and 1 for key, value in augment.items() if key in ("flat_epoch", "stop_epoch")}
    augment["start_epoch"] = 0
    if (tree["criterion"] or {}).get("matcher", {}).get("by_overlap_from"):
        tree["criterion"]["matcher"]["by_overlap_from"] = 1
    train |= {"epochs": 1, "batch": 2, "amp": "off", "channels_last": False}
    train["optimizer"] |= {"lr": 1e-3, "backbone_lr": 1e-4, "weight_decay": 1e-4}
    train["schedule"] |= {"warmup": 2, "flat": 0.5, "end": 0.1, "milestones": [1]}
    if train["average"] and train["second_stage"]:
        train["average"]["warmup"] = 2
        train["second_stage"] |= {"epoch": 1, "decay": 0.9}
    train["scales"] = train["scales"] and 3
    return validated(Recipe, tree, f"toy {name}")


def smaller(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: smaller(f"{key}.{inner}", each) for inner, each in value.items()}
    last = key.rpartition(".")[2]
    if key == "input.channels":
        return value
    if key == "backbone.depth":
        return DEPTHS.get(value, value)
    if key == "backbone.size":
        return "B0" if value in SIZES and len(SIZES[value].stages) == 4 else value
    if key == "backbone.layers":
        return [1, 2, 3]
    if key == "backbone.width":
        return 8
    if key == "encoder.depth":
        return 0.34
    if last in AT_MOST and value is not None:
        return min(value, AT_MOST[last])
    return SMALL.get(last, value)


ALIKE = {}
for each in recipe_names():
    ALIKE.setdefault(json.dumps(toy(each).as_tree(), sort_keys=True), []).append(each)
"""Presets that differ in nothing but sizes are trained once."""

OVERFIT = ("detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "rtdetr-r18", "dfine-s", "deimv2-n")


@pytest.fixture(autouse=True)
def no_pictures(plain, monkeypatch):
    monkeypatch.setattr(stepping, "PICTURES", 0)


@pytest.mark.filterwarnings("ignore:image . has")  # mosaics of four have more targets than these have queries
@pytest.mark.parametrize("name", [names[0] for names in ALIKE.values()])
def test_three_steps_of_each_preset(name, small_sets, tmp_path):
    recipe = toy(name)
    result = train(recipe, **small_sets, out=tmp_path, device="cpu", workers=0, say=lambda line: None)
    (row,) = (row for row in read(tmp_path / "metrics.jsonl") if row["event"] == "epoch")
    assert result.steps == 3
    losses = {key: value for key, value in row.items() if key.startswith("loss")}
    assert len(losses) > 3 * recipe.model.decoder.num_layers
    assert all(math.isfinite(value) for value in losses.values()) and row["loss"] > 0
    assert "AP" in row
    assert load_model(str(tmp_path / "last.safetensors")).config == recipe.model


def test_each_architecture_is_overfitted_below():
    assert {toy(name).model.arch for name in OVERFIT} == set(MODELS)


@pytest.mark.parametrize("name", OVERFIT)
def test_one_batch_is_learned(name):
    torch.manual_seed(0)
    recipe = toy(name)
    network = build_model(recipe.model, classes=Classes.from_names(["circle", "square"]))
    criterion = criterion_for(network, recipe.criterion)
    settings = recipe.train.optimizer.model_copy(update={"lr": 4e-3, "backbone_lr": 4e-3, "sampling_lr": None})
    optimizer = build_optimizer(groups_by_role(network, settings), settings)
    images = torch.rand(2, 3, 64, 64)
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.3], [0.7, 0.6, 0.3, 0.5]])
    targets = [Target(torch.tensor([0, 1]), boxes), Target(torch.tensor([1]), boxes[1:])]
    seen = []
    for step in range(30):
        torch.manual_seed(step)
        loss = sum(criterion(network(images, None, targets), targets).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(float(loss.detach()))
    assert all(math.isfinite(value) for value in seen)
    assert sum(seen[-3:]) < 0.8 * sum(seen[:3])
