import copy

import pytest
import torch
from torch import nn

from detr.classes import Classes
from detr.config import validated
from detr.criterion import criterion_for
from detr.errors import UsageError
from detr.models import build_model
from detr.records import Target
from detr.training.learning.compiling import compile_parts
from detr.training.learning.recomputing import LAYERS, _without_counting, recompute
from detr.training.recipe import Recipe

CLASSES = Classes.from_names(["circle", "square"])
ONE_OF_EACH = ["detr-r50", "deformable-detr-r50", "dino-r50-4scale", "rtdetr-tiny", "dfine-n", "deimv2-n"]
TARGETS = [
    Target(torch.tensor([0, 1]), torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.3, 0.2]])),
    Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)),
]


@pytest.fixture
def network_of(smaller):
    def build(name):
        torch.manual_seed(0)
        return build_model(smaller(name, num_layers=2), classes=CLASSES).train()

    return build


def learned(network, images):
    """Bytes that the backward pass keeps, the losses, gradients and statistics of one step."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(images, None, TARGETS)
    losses = criterion_for(network, None)(output, TARGETS)
    sum(losses.values()).backward()
    gradients = {name: each.grad for name, each in network.named_parameters() if each.grad is not None}
    return sum(kept.values()), losses, gradients, dict(network.named_buffers())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_losses_gradients_and_statistics_stay_the_same_and_less_is_kept(name, network_of):
    network = network_of(name)
    other = copy.deepcopy(network)
    names = list(network.state_dict())
    assert recompute(other) > 2
    assert list(other.state_dict()) == names
    images = torch.rand(2, 3, 96, 96)
    kept, losses, gradients, buffers = learned(network, images)
    less, same_losses, same_gradients, same_buffers = learned(other, images)
    assert less < 0.8 * kept
    assert {key: value.item() for key, value in losses.items()} == {k: v.item() for k, v in same_losses.items()}
    assert gradients.keys() == same_gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(same_gradients[key], gradient, rtol=1e-5, atol=1e-7)
    for key, buffer in buffers.items():
        assert torch.equal(buffer, same_buffers[key]), key


def test_a_copy_recomputes_with_its_own_weights(network_of):
    network = network_of("rtdetr-tiny")
    recompute(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert twin(torch.rand(1, 3, 64, 64), None, TARGETS[:1]).layers[-1].logits.std() > 0
    assert any(isinstance(module, LAYERS) for module in twin.modules())


def test_backbone_and_encoder_are_compiled_in_place_and_copies_are_not(monkeypatch, network_of):
    asked = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: asked.append((type(self).__name__, options))
    )
    network = network_of("rtdetr-tiny")
    names = list(network.state_dict())
    compile_parts(network)
    assert asked == [("ResNet", {"dynamic": False}), ("HybridEncoder", {"dynamic": False})]
    assert list(network.state_dict()) == names


def test_compiling_and_recomputing_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        validated(Recipe, {"model": {}, "train": {"compile": True, "activation_checkpointing": True}}, "test")


def test_norms_that_see_all_processes_rest_as_others_do():
    network = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))
    with _without_counting(network):
        assert network[1].momentum == 0.0
    assert network[1].momentum == 0.1
