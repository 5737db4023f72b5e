"""Losses, matches and gradients of the official code, from weights that follow a rule (tests/golden/README.md)."""

import importlib.util
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from detr.convert import to_ours, to_theirs
from detr.criterion import MatcherConfig, criterion_for
from detr.criterion.matcher import match
from detr.criterion.truth import in_one_row
from detr.models import build_model
from detr.records import Target

GOLDEN = Path(__file__).parent.parent / "golden"
RECORDS = json.loads((GOLDEN / "losses.json").read_text())
EARLY = ("backbone.stem", "backbone.stages.0", "backbone.stages.1", "backbone.stages.2")
MODELS = {"rtdetr_r18vd": "rtdetr-r18", "rtdetrv2_r18vd": "rtdetrv2-r18"}


def fill():
    spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def trained_once(fixture):
    """Our output, targets and weighted losses, and where recorded the norms of the gradients by official name."""
    record, rule = RECORDS[fixture], fill()
    official = fixture.split(".")[0]
    source = official.split("_")[0] + "-official"
    network = build_model(MODELS[official]).double()
    shapes = {name: tuple(each.shape) for name, each in to_theirs(network.state_dict(), source).items()}
    network.load_state_dict(to_ours(rule.filled_state(shapes), source))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    targets = [
        Target(torch.tensor(each["labels"]), torch.tensor(each["boxes_cxcywh_normalised"], dtype=torch.float64))
        for each in record["targets"]
    ]
    if record["denoising"] is None:
        network.denoising = None
    else:
        torch.manual_seed(record["denoising"]["seed"])
    with torch.set_grad_enabled("gradients" in record):
        drawn_from = [Target(each.labels, each.boxes.float()) for each in targets]
        output = network(rule.image(*record["input"].values()), targets=drawn_from)
        losses = criterion_for(network)(output, targets)
    norms = {kind: gradients(network, losses, kind, source) for kind in record.get("gradients", ())}
    return output, targets, {name: value.item() for name, value in losses.items()}, norms


def gradients(network, losses, kind, source):
    """Official name -> norm of the gradient of the losses of one kind, 0 where there is none, but for early stages."""
    total = sum(loss for name, loss in losses.items() if ("vfl" in name) == (kind == "classification"))
    weights = {name: weight for name, weight in network.named_parameters() if not name.startswith(EARLY)}
    names = to_theirs({name: weight.detach() for name, weight in weights.items()}, source)
    found = torch.autograd.grad(total, list(weights.values()), retain_graph=True, allow_unused=True)
    return {name: 0.0 if each is None else each.norm().item() for name, each in zip(names, found, strict=True)}


@pytest.mark.parametrize("fixture", RECORDS)
def test_losses_are_the_official_ones_under_their_names(fixture):
    _, _, losses, _ = trained_once(fixture)
    assert losses == pytest.approx(RECORDS[fixture]["losses"], rel=1e-6)


@pytest.mark.parametrize("fixture", RECORDS)
def test_matches_are_the_official_ones_in_their_order(fixture):
    output, targets, _, _ = trained_once(fixture)
    truth = in_one_row(targets, device=torch.device("cpu"), dtype=torch.float64)
    heads = [output.layers[-1], *output.layers[:-1], output.proposals]
    for pairs, images in zip(match(heads, truth, MatcherConfig()), RECORDS[fixture]["matches"], strict=True):
        assert pairs.queries.tolist() == [query for queries, _ in images for query in queries]
        assert pairs.targets.tolist() == [
            start + target for start, (_, theirs) in zip(truth.starts, images, strict=True) for target in theirs
        ]


@pytest.mark.parametrize("kind", ["classification", "localisation"])
@pytest.mark.parametrize("fixture", [name for name in RECORDS if "gradients" in RECORDS[name]])
def test_the_gradient_of_each_parameter_is_the_official_one(fixture, kind):
    """They answer to each place where a gradient is stopped. What has no gradient there has none here."""
    *_, norms = trained_once(fixture)
    recorded = RECORDS[fixture]["gradients"][kind]
    smallest = 1e-9 * max(recorded.values())
    for name, norm in norms[kind].items():
        assert norm == pytest.approx(recorded.get(name, 0.0), rel=1e-6, abs=smallest), name
    assert set(recorded) <= set(norms[kind])
