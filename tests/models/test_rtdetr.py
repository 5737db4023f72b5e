import math

import pytest
import torch
from torch import nn

from detr.classes import Classes
from detr.config import validated
from detr.errors import UsageError
from detr.models.rtdetr import RTDETRConfig, RTDETRNetwork

IMAGES = torch.rand(3, 3, 64, 96)


def total(output):
    """Something that depends on all that is given out."""
    parts = [*output.layers, *([output.proposals] if output.proposals else [])]
    parts += output.denoising.layers if output.denoising else ()
    return sum(part.logits.square().sum() + part.boxes.square().sum() for part in parts)


def settled(network):
    """In training with batch norms in evaluation: one forward doesn't change the next."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def test_training_gives_every_layer_the_proposals_and_the_denoising(small, targets):
    output = small(IMAGES, targets=targets)
    assert len(output.layers) == 3
    for part in (*output.layers, output.proposals):
        assert part.logits.shape == (3, 7, 3) and part.boxes.shape == (3, 7, 4)
    assert len(output.denoising.layers) == 3
    assert output.denoising.layers[0].logits.shape == (3, 2 * 2 * 2, 3)  # groups, signs, most targets


def test_evaluation_gives_one_layer(small):
    output = small.eval()(IMAGES)
    assert len(output.layers) == 1 and output.proposals is None and output.denoising is None


@pytest.mark.parametrize("size", [(64, 64), (65, 37), (8, 200), (1, 1)])
def test_any_size_works(small, size):
    answer = small.eval()(torch.rand(1, 3, *size)).layers[-1]
    assert answer.boxes.isfinite().all() and answer.logits.isfinite().all()
    positions = sum(math.ceil(size[0] / stride) * math.ceil(size[1] / stride) for stride in (8, 16, 32))
    assert answer.boxes.shape[1] == min(7, positions)


def test_training_and_evaluation_agree(small, targets):
    trained = settled(small)(IMAGES, targets=targets).layers[-1]
    answer = small.eval()(IMAGES).layers[-1]
    torch.testing.assert_close(trained.boxes, answer.boxes)
    torch.testing.assert_close(trained.logits, answer.logits)


def test_the_noised_targets_change_nothing_for_the_matching_queries(small, targets):
    settled(small)
    with_targets, without = small(IMAGES, targets=targets), small(IMAGES)
    for one, other in zip(with_targets.layers, without.layers, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)


@pytest.mark.parametrize("given", ["some", "empty", "none"])
def test_every_parameter_gets_a_gradient_with_and_without_targets(small, targets, given):
    some = {"some": targets, "empty": [targets[2]] * 3, "none": None}[given]
    total(small(IMAGES, targets=some)).backward()
    assert [name for name, parameter in small.named_parameters() if parameter.grad is None] == []


def test_the_boxes_of_a_layer_teach_it_and_the_layer_before_but_no_earlier_one(small):
    for head in small.decoder.box_heads:  # away from the start, where the last layers are zero
        nn.init.normal_(head.layers[-1].weight, std=0.1)
    output = settled(small)(IMAGES)
    output.layers[2].boxes.sum().backward()
    gradients = [head.layers[-1].bias.grad for head in small.decoder.box_heads]
    assert gradients[0] is None and gradients[1].norm() > 0 and gradients[2].norm() > 0


def test_queries_start_without_gradient_to_the_encoder(small):
    settled(small)(IMAGES).layers[-1].logits.sum().backward()
    assert small.queries.embed.weight.grad is None
    assert small.backbone.stem[0].conv.weight.grad is not None  # by way of the memory


def test_every_class_starts_with_probability_one_percent_and_boxes_with_their_anchors(small):
    with torch.no_grad():
        for head in (small.queries.score_head, *small.decoder.score_heads):
            head.weight.zero_()
    output = settled(small)(IMAGES)
    for part in (*output.layers, output.proposals):
        torch.testing.assert_close(part.logits.sigmoid(), torch.full_like(part.logits, 0.01))
        torch.testing.assert_close(part.boxes, output.proposals.boxes)


def test_a_third_layer_of_the_position_head_starts_as_pytorch_does_it(small_config):
    decoder = small_config.decoder.model_copy(update={"position_layers": 3})
    head = RTDETRNetwork(small_config.model_copy(update={"decoder": decoder}), Classes.from_names(["cat"])).decoder
    _, second, third = (layer.weight.abs().max() * math.sqrt(layer.in_features) for layer in head.position_head.layers)
    assert third <= 1 < second  # Xavier's bound is 1.7


def test_padded_positions_do_not_become_queries(small):
    settled(small).set_queries(1000)
    padding = torch.zeros(3, 64, 96, dtype=torch.bool)
    padding[:, :, 64:] = True
    seen = []
    small.queries.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert total(small(IMAGES, padding)).isfinite()
    inside = 8 * 8 + 4 * 4 + 2 * 2
    chosen = seen[0].proposals.boxes[:, :inside, 0]
    assert (chosen < 64 / 96).all()


def test_without_padding_and_with_padding_nowhere_are_the_same(small):
    nowhere = torch.zeros(3, 64, 96, dtype=torch.bool)
    one, other = small.eval()(IMAGES), small(IMAGES, nowhere)
    torch.testing.assert_close(one.layers[-1].boxes, other.layers[-1].boxes)


def test_queries_can_be_fewer_or_more_after_training(small):
    small.eval().set_queries(3)
    few = small(IMAGES).layers[-1]
    assert few.boxes.shape == (3, 3, 4) and small.config.num_queries == 3
    small.set_queries(50)
    assert small(IMAGES).layers[-1].boxes.shape == (3, 50, 4)


def test_layers_can_be_fewer_after_training(small):
    trained = settled(small)(IMAGES)
    small.eval().set_layers(2)
    torch.testing.assert_close(small(IMAGES).layers[-1].boxes, trained.layers[1].boxes)
    assert small.config.decoder.eval_layers == 2
    assert len(small.train()(IMAGES).layers) == 3


@pytest.mark.parametrize(("setter", "count"), [("set_queries", 0), ("set_layers", 0), ("set_layers", 4)])
def test_impossible_counts_are_refused(small, setter, count):
    with pytest.raises(UsageError, match=str(count)):
        getattr(small, setter)(count)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_deployed_form_gives_the_same_with_fewer_parts(small_config, frozen):
    config = small_config.model_copy(
        update={"backbone": small_config.backbone.model_copy(update={"frozen_norms": frozen})}
    )
    network = RTDETRNetwork(config, Classes.from_names(["cat", "dog"])).double()
    images = IMAGES.double()
    for _ in range(3):  # statistics that are not the neutral ones
        network(images)
    network.eval().set_layers(2)
    deployed = network.deploy()
    expected, found = network(images).layers[-1], deployed(images).layers[-1]
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-12)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert len(deployed.decoder.layers) == 2 and len(network.decoder.layers) == 3
    assert network.denoising is not None


def test_mixed_precision_keeps_boxes_in_full_precision(small, targets):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = small(IMAGES, targets=targets)
    for part in (*output.layers, output.proposals, *output.denoising.layers):
        assert part.boxes.dtype == torch.float32
    total(output).backward()
    assert all(parameter.grad.isfinite().all() for parameter in small.parameters())


def test_a_network_in_half_precision_answers_nearly_the_same(small):
    small.eval().set_queries(1000)  # all positions: which come first is a matter of the last bits
    seen = []
    small.queries.register_forward_hook(lambda module, inputs, output: seen.append(output.positions))
    expected = small(IMAGES).layers[-1].logits
    found = small.half()(IMAGES.half()).layers[-1].logits
    ours, theirs = ((rows.argsort(1)[..., None].expand(-1, -1, 3)) for rows in seen)
    torch.testing.assert_close(found.float().gather(1, theirs), expected.gather(1, ours), rtol=0, atol=0.05)


def test_discrete_sampling_runs_on_any_size(small_config, targets):
    decoder = small_config.decoder.model_copy(update={"sampling": "discrete"})
    network = RTDETRNetwork(small_config.model_copy(update={"decoder": decoder}), Classes.from_names(["a", "b", "c"]))
    total(network(IMAGES, targets=targets)).backward()
    assert network.eval()(torch.rand(1, 3, 96, 40)).layers[-1].boxes.isfinite().all()


def test_without_denoising_there_is_none(small_config, targets):
    network = RTDETRNetwork(small_config.model_copy(update={"num_denoising": 0}), Classes.from_names(["a", "b", "c"]))
    assert network(IMAGES, targets=targets).denoising is None


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"decoder": {"channels": 100}}, "decoder.channels 100 .* 8 heads"),
        ({"encoder": {"channels": 260, "heads": 8}}, "encoder.channels 260 .* 8 heads"),
        ({"decoder": {"num_layers": 3, "eval_layers": 4}}, "eval_layers .* 3"),
        ({"decoder": {"points": [4, 0, 4]}}, "at least one point"),
        ({"num_queries": 0}, "num_queries"),
        ({"backbone": {"depth": 42}}, "depth"),
        ({"decoder": {"layers": 3}}, "did you mean"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tree, message):
    with pytest.raises(UsageError, match=message):
        validated(RTDETRConfig, tree, "a recipe")
