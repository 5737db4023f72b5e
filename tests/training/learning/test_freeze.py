import pytest
import torch

from detr.models import build_model
from detr.training.learning.freeze import freeze

PRESETS = ("detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "rtdetr-r18", "dfine-n", "deimv2-atto")


@pytest.fixture(params=PRESETS)
def network(request):
    with torch.device("meta"):
        return build_model(request.param)


def learning(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_a_frozen_backbone_leaves_the_rest(network):
    before = learning(network)
    frozen = freeze(network, "backbone")
    assert learning(network) == {name for name in before if not name.startswith("backbone.")}
    assert {module for part in frozen for module in part.modules()} <= set(network.backbone.modules())


def test_a_frozen_stem_leaves_the_stages(network):
    before, stem = learning(network), network.backbone.stem
    freeze(network, "stem")
    assert before - learning(network) <= {f"backbone.stem.{name}" for name, _ in stem.named_parameters()}
    assert not any(parameter.requires_grad for parameter in stem.parameters())


def test_all_but_heads_leaves_what_says_classes_and_boxes(network):
    frozen = freeze(network, "all but heads")
    heads = {parameter for head in network.heads() for parameter in head.parameters()}
    assert {parameter for parameter in network.parameters() if parameter.requires_grad} == heads
    assert heads and not {module for head in network.heads() for module in head.modules()} & set(frozen)


def test_nothing_freezes_nothing(network):
    before = learning(network)
    assert freeze(network, "nothing") == []
    assert learning(network) == before
