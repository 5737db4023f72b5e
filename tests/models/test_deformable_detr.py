import math

import pytest
import torch
from torch import nn

from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import validated
from detr.criterion import criterion_for
from detr.errors import UsageError
from detr.models import build_model
from detr.models.deformable_detr import DecoderConfig, DeformableDETRConfig, DeformableDETRNetwork
from detr.models.deformable_encoder import DeformableEncoderConfig
from detr.models.presets import preset

CLASSES = Classes((1, 4, 5), ("cat", "dog", "bird"))
VARIANTS = {
    "plain": {},
    "refine": {"refine": True},
    "two stage": {"refine": True, "two_stage": True},
}
every = pytest.mark.parametrize("variant", VARIANTS)


def config(variant, **changes):
    settings = {
        "slots": "id",
        "num_queries": 7,
        "backbone": ResNetConfig(depth=10, width=8, variant="b", frozen_norms=True, frozen_stages=2),
        "encoder": DeformableEncoderConfig(channels=32, heads=4, hidden=16, num_layers=1, points=2, dropout=0.0),
        "decoder": DecoderConfig(heads=2, hidden=16, num_layers=3, points=2, dropout=0.0),
    }
    return DeformableDETRConfig(**settings | VARIANTS[variant] | changes)


def built(variant, **changes):
    """Boxes and queries differ, so that nothing is the same by default."""
    network = DeformableDETRNetwork(config(variant, **changes), CLASSES)
    for head in network.decoder.box_heads:
        nn.init.normal_(head.layers[-1].weight, std=0.3)
    return network


def images(height=75, width=101):
    """Two, neither square nor of a whole number of cells, and the padding of the second."""
    padding = torch.zeros(2, height, width, dtype=torch.bool)
    padding[1, 50:] = padding[1, :, 64:] = True
    return torch.rand(2, 3, height, width).masked_fill(padding[:, None], 0), padding


def test_the_default_is_the_paper_s_main_model_and_the_presets_differ_in_their_fields():
    main = preset("deformable-detr-r50")
    assert DeformableDETRConfig(slots="id", input=main.input) == main
    assert preset("deformable-detr-r50-refine") == main.model_copy(update={"refine": True})
    assert preset("deformable-detr-r50-two-stage") == main.model_copy(update={"refine": True, "two_stage": True})


@every
def test_training_gives_every_layer_and_evaluation_the_last(variant, targets):
    network = built(variant)
    given = images()
    output = network(*given)
    assert [tuple(layer.logits.shape) for layer in output.layers] == [(2, 7, 6)] * 3
    last = network.eval()(*given)
    assert len(last.layers) == 1 and last.proposals is None
    torch.testing.assert_close(last.layers[-1].boxes, output.layers[-1].boxes)
    torch.testing.assert_close(last.layers[-1].logits, output.layers[-1].logits)


def test_only_two_stages_propose_and_every_position_does():
    given = images()
    assert built("plain")(*given).proposals is None and built("refine")(*given).proposals is None
    positions = 10 * 13 + 5 * 7 + 3 * 4 + 2 * 2  # sides of 75 and 101 over 8, 16, 32, 64, rounded up
    assert built("two stage")(*given).proposals.boxes.shape == (2, positions, 4)


@every
def test_padding_of_nothing_changes_nothing(variant):
    network = built(variant).eval()
    some, padding = images()
    without = network(some).layers[-1]
    none_padded = network(some, torch.zeros_like(padding)).layers[-1]
    torch.testing.assert_close(none_padded.boxes, without.boxes)
    torch.testing.assert_close(none_padded.logits, without.logits)
    padded = network(some, padding).layers[-1]
    assert (padded.boxes[1] - without.boxes[1]).abs().max() > 1e-3


@every
def test_an_image_is_answered_alike_alone_and_in_a_batch(variant):
    network = built(variant).eval()
    some, padding = images()
    together = network(some, padding).layers[-1].boxes
    for index in range(2):
        alone = network(some[index : index + 1], padding[index : index + 1]).layers[-1].boxes
        torch.testing.assert_close(alone[0], together[index])


@every
def test_every_parameter_that_may_learn_does(variant, targets):
    network = built(variant, num_queries=40)
    for head in network.by_class():  # else the first slot never differs
        nn.init.normal_(head.weight, std=0.3)
    losses = criterion_for(network)(network(*images()), targets[:2])
    sum(losses.values()).backward()
    still = [name for name, each in network.named_parameters() if each.requires_grad and each.grad is None]
    assert still == []
    assert all(each.grad is None for each in network.backbone.stem.parameters())


def test_plain_layers_share_a_pair_of_heads_and_start_from_the_same_points():
    network = built("plain")
    assert len(network.decoder.score_heads) == len(network.decoder.box_heads) == 1
    nn.init.zeros_(network.decoder.box_heads[0].layers[-1].weight)
    layers = network(*images()).layers
    for layer in layers:
        torch.testing.assert_close(layer.boxes, layers[0].boxes)
        torch.testing.assert_close(layer.boxes[..., 2:], torch.full((2, 7, 2), 1 / (1 + math.e**2)))
    points = network.queries.point(network.queries.embedding.weight[:, :32]).sigmoid()
    torch.testing.assert_close(layers[0].boxes[0, :, :2], points, rtol=0, atol=1e-5)


def test_refined_boxes_go_on_without_gradient():
    network = built("refine")
    network(*images()).layers[1].boxes.sum().backward()
    first, second, third = (head.layers[-1].bias.grad for head in network.decoder.box_heads)
    assert first is None and third is None and second.abs().sum() > 0


@every
def test_classes_start_with_a_probability_of_a_hundredth(variant):
    network = DeformableDETRNetwork(config(variant), CLASSES)
    for head in network.by_class():
        nn.init.zeros_(head.weight)
    torch.testing.assert_close(network(*images()).layers[-1].logits.sigmoid(), torch.full((2, 7, 6), 0.01))


def test_two_stages_start_from_boxes_that_lie_on_the_grid():
    network = DeformableDETRNetwork(config("two stage"), CLASSES)
    some, _ = images()
    output = network(some)
    cells = {0.05: (10, 13), 0.1: (5, 7), 0.2: (3, 4), 0.4: (2, 2)}
    for x, y, width, height in output.layers[0].boxes[0].tolist():
        rows, columns = cells[round(width, 4)]
        assert height == pytest.approx(width, abs=1e-5)
        assert (x * columns) % 1 == pytest.approx(0.5, abs=1e-3) and (y * rows) % 1 == pytest.approx(0.5, abs=1e-3)


@every
def test_fewer_layers_and_queries_give_what_these_said(variant):
    network = built(variant)
    given = images()
    before = network(*given).layers[1].boxes
    network.set_layers(2)
    network.set_queries(4)
    network.eval()
    now = network(*given).layers[-1].boxes
    assert now.shape == (2, 4, 4)
    if variant == "two stage":  # queries look at each other; in the others too, but less depends on it
        assert network.config.eval_queries == 4
    else:
        assert (now - before[:, :4]).abs().max() < 0.2
    torch.testing.assert_close(network.deploy()(*given).layers[-1].boxes, now)
    with pytest.raises(UsageError, match="8 queries: expected 1 to 7"):
        network.set_queries(8)


def test_whatever_does_not_fit_is_refused():
    for wrong, said in (
        ({"two_stage": True}, "two_stage needs refine"),
        ({"encoder": {"levels": 2}}, "encoder.levels 2: the backbone gives 3"),
        ({"encoder": {"channels": 96, "heads": 7}}, "can't be shared among 7 heads"),
        ({"decoder": {"heads": 7}}, "can't be shared among decoder.heads 7"),
        ({"decoder": {"eval_layers": 7}}, "more than the 6 layers"),
        ({"eval_queries": 301}, "more than the 300 queries"),
    ):
        with pytest.raises(UsageError, match=said):
            validated(DeformableDETRConfig, {"arch": "deformable_detr", **wrong}, "recipe")


@pytest.mark.parametrize(("name", "count"), [("deformable-detr-r50", 2), ("deformable-detr-r50-two-stage", 4)])
def test_what_the_encoder_proposes_has_heads_of_its_own(name, count):
    with torch.device("meta"):
        assert len(build_model(name).heads()) == count
