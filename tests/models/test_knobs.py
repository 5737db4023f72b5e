"""Layers and queries that run, set after training, in every architecture."""

import pytest
import torch

from detr.errors import UsageError
from detr.models import MODELS, build_model
from detr.models.presets import preset

ONE_OF_EACH_KIND = [
    "detr-r50",
    "deformable-detr-r50",
    "deformable-detr-r50-refine",
    "deformable-detr-r50-two-stage",
    "dino-r50-4scale",
    "rtdetr-r18",
    "dfine-n",
    "deimv2-atto",
]


@pytest.fixture(params=ONE_OF_EACH_KIND)
def network(request, smaller):
    torch.manual_seed(0)
    network = build_model(smaller(request.param, num_layers=3)).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # heads that start at zero would answer alike after every layer
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


IMAGES = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def test_every_architecture_is_here():
    assert {preset(name).arch for name in ONE_OF_EACH_KIND} == set(MODELS)


@torch.no_grad()
def test_fewer_layers_answer_otherwise_and_all_of_them_as_before(network):
    whole = network(IMAGES).layers[-1]
    answers = []
    for count in (1, 2, 3):
        network.set_layers(count)
        answers.append(network(IMAGES).layers[-1].boxes)
        folded = network.deploy()(IMAGES).layers[-1]
        torch.testing.assert_close(folded.boxes, answers[-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answers[2], whole.boxes)
    assert not torch.allclose(answers[0], answers[1]) and not torch.allclose(answers[1], answers[2])
    with pytest.raises(UsageError, match="4 decoder layers: expected 1 to 3"):
        network.set_layers(4)


@torch.no_grad()
def test_fewer_queries_give_fewer_boxes(network):
    network.set_queries(4)
    answer = network(IMAGES).layers[-1]
    assert (answer.logits.shape[1], answer.boxes.shape[1]) == (4, 4)
    assert network.deploy()(IMAGES).layers[-1].boxes.shape[1] == 4
    network.set_queries(9)
    assert network(IMAGES).layers[-1].boxes.shape[1] == 9


@torch.no_grad()
def test_a_layer_that_answers_says_what_training_hears_of_it(network):
    """The last of `count` layers is that layer of the training pass, with norms and dropout as in evaluation."""
    network.training = network.decoder.training = True
    heard = network(IMAGES).layers
    network.training = network.decoder.training = False
    for count, layer in enumerate(heard, 1):
        network.set_layers(count)
        answer = network(IMAGES).layers[-1]
        torch.testing.assert_close(answer.logits, layer.logits, rtol=1e-4, atol=1e-5)
