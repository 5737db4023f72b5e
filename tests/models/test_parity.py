"""Equal to the official code: the same weights by rule, the same images, the recorded outputs (tests/golden/README.md).

Anchors and the position table are float32 here and there, and the float32 logarithm of two machines differs in the last
bit: hence 2e-6 for logits and 4e-7 for boxes. What doesn't depend on anchors agrees to the rounding of float64.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detr.convert import source_for, to_ours, to_theirs
from detr.models import build_model
from detr.records import Target

GOLDEN = Path(__file__).parent.parent / "golden"
IN_FULL = ["rtdetr-r18", "rtdetrv2-r18", "dfine-n"]
ANSWERS = ["deim-dfine-n", "deim-rtdetrv2-r18"]
TARGETS = [
    Target(
        torch.tensor([3, 17, 61]),
        torch.tensor([[0.25, 0.3, 0.2, 0.35], [0.62, 0.55, 0.45, 0.5], [0.8, 0.2, 0.12, 0.1]]),
    ),
    Target(torch.tensor([42]), torch.tensor([[0.45, 0.6, 0.3, 0.24]])),
]
EXACT, LOGITS, BOXES = 1e-9, 2e-6, 4e-7

in_full = pytest.mark.parametrize("name", IN_FULL)


@pytest.fixture(scope="module")
def recorded(fill):
    """Name -> network, images, recorded outputs."""

    @cache
    def of(name):
        network = build_model(name).double()
        source = source_for(network.config, "official")
        official = to_theirs(network.state_dict(), source)
        state = fill.filled_state({key: tuple(tensor.shape) for key, tensor in official.items()})
        state.update({key: 1 + tensor for key, tensor in state.items() if key.endswith(".lab.scale")})
        network.load_state_dict(to_ours(state, source))
        return network, fill.image(7, 2, 320, 320), dict(np.load(GOLDEN / f"{name}.npz"))

    return of


def training(network):
    """As recorded: in training, with the batch norms in evaluation."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours.double(), torch.from_numpy(theirs).double(), rtol=0, atol=tolerance)


@in_full
@torch.no_grad()
def test_evaluation_gives_the_official_numbers_all_the_way(recorded, name):
    network, images, golden = recorded(name)
    seen = {}
    hooks = []
    for part in ("backbone", "encoder", "encoder.attention.0", "queries"):
        keep = lambda module, inputs, output, part=part: seen.update({part: output})  # noqa: E731
        hooks.append(network.get_submodule(part).register_forward_hook(keep))
    answer = network.eval()(images).layers[-1]
    for hook in hooks:
        hook.remove()
    for room in ("backbone", "encoder"):
        for level, each in enumerate(seen[room]):
            close(each.mean((1, 2, 3)), golden[f"{room}{level}_mean"], EXACT)
            close(each.std((1, 2, 3), correction=0), golden[f"{room}{level}_std"], EXACT)
            close(each.mean((2, 3)), golden[f"{room}{level}_channel_mean"], EXACT)
    close(seen["encoder.attention.0"][:, :4], golden["aifi_first4_tokens"], EXACT)
    close(seen["queries"].positions, golden["topk_indices"], 0)
    close(seen["queries"].proposals.logits.amax(-1), golden["topk_scores"], EXACT)
    close(answer.logits[:, :16], golden["pred_logits"], LOGITS)
    close(answer.boxes, golden["pred_boxes"], BOXES)

    deployed = network.deploy()(images[:1]).layers[-1]
    torch.testing.assert_close(deployed.logits, answer.logits[:1], rtol=0, atol=1e-9)
    torch.testing.assert_close(deployed.boxes, answer.boxes[:1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ANSWERS)
@torch.no_grad()
def test_answers_are_the_official_ones(recorded, name):
    network, images, golden = recorded(name)
    chosen = []
    hook = network.queries.register_forward_hook(lambda module, inputs, output: chosen.append(output.positions))
    answer = network.eval()(images).layers[-1]
    hook.remove()
    close(chosen[0], golden["topk_indices"], 0)
    close(answer.logits[:, :8], golden["pred_logits"], LOGITS)
    close(answer.boxes[:, :32], golden["pred_boxes"], BOXES)


@in_full
@torch.no_grad()
def test_training_gives_the_official_numbers_with_denoising(recorded, name, monkeypatch):
    network, images, golden = recorded(name)
    torch.manual_seed(0)
    drawn = network.denoising.noise(TARGETS)
    close(drawn.labels, golden["dn_class_ids"], 0)
    close(drawn.boxes, golden["dn_boxes_unact"], 1e-5)
    same = replace(drawn, boxes=torch.from_numpy(golden["dn_boxes_unact"]))
    monkeypatch.setattr(network.denoising, "noise", lambda targets: same)
    output = training(network)(images, targets=TARGETS)
    close(torch.stack([each.boxes[:, :32] for each in output.layers]), golden["layers_boxes"], BOXES)
    close(output.proposals.boxes[:, :32], golden["enc_topk_boxes"], BOXES)
    close(torch.stack([each.boxes[:, :32] for each in output.denoising.layers]), golden["dn_layers_boxes"], BOXES)
    if output.start is not None:
        close(output.start.boxes[:, :32], golden["pre_boxes"], BOXES)
        edges = torch.stack([each.edges.logits[:, :4].flatten(2) for each in output.layers])
        close(edges, golden["layers_corners_first4"], LOGITS)
