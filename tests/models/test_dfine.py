import pytest
import torch
from torch import nn

from detr.backbones.hgnetv2 import HGNetv2Config
from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import validated
from detr.errors import UsageError
from detr.layers.edges import bin_positions, boxes_from_edges, expected_moves
from detr.models.dfine import DecoderConfig, DFINEConfig, DFINENetwork, EncoderConfig

IMAGES = torch.rand(3, 3, 32, 64)
CLASSES = Classes.from_names(["cat", "dog", "bird"])


def config(backbone=ResNetConfig(depth=10, width=8), **decoder):  # noqa: B008
    return DFINEConfig(
        num_queries=7,
        num_denoising=4,
        backbone=backbone,
        encoder=EncoderConfig(channels=16, heads=2, hidden=16, expansion=0.5, depth=0.34),
        decoder=DecoderConfig(
            **{"channels": 16, "heads": 2, "hidden": 16, "num_layers": 3, "points": (2, 3, 1), **decoder}
        ),
    )


@pytest.fixture
def small():
    return DFINENetwork(config(), CLASSES)


def settled(network):
    """In training with batch norms in evaluation, and heads away from zero, where they start."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    decoder = network.decoder
    for head in (decoder.start_head, *decoder.box_heads, *(each.head for each in decoder.quality_heads)):
        nn.init.normal_(head.layers[-1].weight, std=0.3)
    return network


def parts(output):
    some = [*output.layers, output.proposals, output.start]
    return [*some, *output.denoising.layers, output.denoising.start] if output.denoising else some


def total(output):
    return sum(part.logits.square().sum() + part.boxes.square().sum() for part in parts(output))


def test_training_gives_layers_with_edges_their_start_and_the_denoising(small, targets):
    output = small(IMAGES, targets=targets)
    assert len(output.layers) == len(output.denoising.layers) == 3
    for part in (*output.layers, output.proposals, output.start):
        assert part.logits.shape == (3, 7, 3) and part.boxes.shape == (3, 7, 4)
    for part in (*output.denoising.layers, output.denoising.start):
        assert part.boxes.shape == (3, 8, 4)
    assert all(each.edges.logits.shape == (3, 7, 4, 33) for each in output.layers)
    assert all(each.edges.logits.shape == (3, 8, 4, 33) for each in output.denoising.layers)


def test_boxes_are_the_start_boxes_with_their_edges_moved(small):
    output = settled(small)(IMAGES)
    for each in output.layers:
        torch.testing.assert_close(each.edges.start, output.start.boxes)
        assert not each.edges.start.requires_grad
        moves = expected_moves(each.edges.logits, bin_positions())
        torch.testing.assert_close(each.boxes, boxes_from_edges(moves, each.edges.start))


def test_boxes_begin_as_their_anchors_and_classes_with_probability_one_percent(small):
    with torch.no_grad():
        for head in (small.queries.score_head, *small.decoder.score_heads):
            head.weight.zero_()
    output = small(IMAGES)
    for part in parts(output):
        torch.testing.assert_close(part.boxes, output.proposals.boxes)
        torch.testing.assert_close(part.logits.sigmoid(), torch.full_like(part.logits, 0.01))


def test_a_layer_teaches_the_distributions_of_all_before_it_but_not_the_start(small):
    output = settled(small)(IMAGES)
    output.layers[1].boxes.square().sum().backward(retain_graph=True)
    gradients = [head.layers[-1].bias.grad for head in small.decoder.box_heads]
    assert gradients[0].norm() > 0 and gradients[1].norm() > 0 and gradients[2] is None
    assert small.decoder.start_head.layers[-1].bias.grad is None
    output.start.boxes.sum().backward()
    assert small.decoder.start_head.layers[-1].bias.grad.norm() > 0


def test_the_sharper_the_edges_the_surer_a_quality_head_may_be(small):
    [head, *_] = small.decoder.quality_heads
    with torch.no_grad():
        for layer in head.head.layers:
            layer.weight.fill_(1.0), layer.bias.zero_()
    flat, sharp = torch.zeros(1, 1, 4, 33), torch.zeros(1, 1, 4, 33)
    sharp[..., 16] = 9.0
    assert head(sharp, like=flat) > head(flat, like=flat) + 1
    assert head(flat, like=flat).shape == (1, 1, 1)


def test_training_and_evaluation_agree_for_any_number_of_layers(small, targets):
    trained = settled(small)(IMAGES, targets=targets).layers
    for count in (1, 2, 3):
        small.eval().set_layers(count)
        [answer] = small(IMAGES).layers
        torch.testing.assert_close(answer.boxes, trained[count - 1].boxes)
        torch.testing.assert_close(answer.logits, trained[count - 1].logits)


@pytest.mark.parametrize("size", [(32, 32), (65, 37), (1, 1)])
def test_any_size_works(small, size):
    answer = small.eval()(torch.rand(1, 3, *size)).layers[-1]
    assert answer.boxes.isfinite().all() and answer.logits.isfinite().all()


@pytest.mark.parametrize("given", ["some", "empty", "none"])
def test_every_parameter_gets_a_gradient_with_and_without_targets(small, targets, given):
    some = {"some": targets, "empty": [targets[2]] * 3, "none": None}[given]
    total(small(IMAGES, targets=some)).backward()
    assert [name for name, parameter in small.named_parameters() if parameter.grad is None] == []


def test_padding_changes_nothing_where_there_is_none_and_hides_what_lies_in_it(small):
    settled(small).eval()
    nowhere = torch.zeros(3, 32, 64, dtype=torch.bool)
    torch.testing.assert_close(small(IMAGES, nowhere).layers[-1].boxes, small(IMAGES).layers[-1].boxes)
    right = nowhere.clone()
    right[:, :, 32:] = True
    chosen = []
    small.queries.register_forward_hook(lambda module, inputs, output: chosen.append(output.proposals.boxes))
    small(IMAGES, right)
    assert (chosen[0][..., 0] < 32 / 64).all()


def test_the_deployed_form_gives_the_same_with_fewer_parts(small):
    network = settled(small).double()
    network.eval().set_layers(2)
    deployed = network.deploy()
    expected, found = network(IMAGES.double()).layers[-1], deployed(IMAGES.double()).layers[-1]
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-12)
    assert len(deployed.decoder.layers) == len(deployed.decoder.box_heads) == 2 and deployed.denoising is None
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())


def test_mixed_and_half_precision_keep_boxes_and_edges_in_full_precision(small, targets):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = settled(small)(IMAGES, targets=targets)
    assert all(part.boxes.dtype == torch.float32 for part in parts(output))
    assert all(part.edges.logits.dtype == torch.float32 for part in output.layers)
    total(output).backward()
    assert all(parameter.grad.isfinite().all() for parameter in small.parameters())
    answer = small.half().eval()(IMAGES.half()).layers[-1]
    assert answer.boxes.dtype == torch.float32 and answer.boxes.isfinite().all()


def test_deim_is_another_activation_in_decoder_and_heads(small):
    other = DFINENetwork(config(activation="silu"), CLASSES)
    other.load_state_dict(small.state_dict())
    decoder = [name for name, each in other.named_modules() if isinstance(each, nn.ReLU) and "backbone" not in name]
    assert decoder == [] and any(isinstance(each, nn.ReLU) for each in small.decoder.modules())
    ours, theirs = settled(small).eval()(IMAGES).layers[-1], settled(other).eval()(IMAGES).layers[-1]
    assert not torch.allclose(ours.logits, theirs.logits, atol=1e-3)


def test_maps_that_have_the_width_of_the_decoder_are_not_projected(small):
    assert all(isinstance(each, nn.Identity) for each in small.projections)
    wider = config().model_copy(update={"encoder": EncoderConfig(channels=24, heads=2, hidden=16, depth=0.34)})
    assert not any(isinstance(each, nn.Identity) for each in DFINENetwork(wider, CLASSES).projections)


def test_two_levels_of_hgnetv2_work_too():
    two = config(HGNetv2Config(size="Atto", stages=(2, 3)), points=(2, 2))
    assert DFINENetwork(two, CLASSES).eval()(IMAGES).layers[-1].boxes.shape == (3, 7, 4)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"decoder": {"channels": 100}}, "channels 100 .* 8 heads"),
        ({"encoder": {"channels": 260, "heads": 8}}, "encoder.channels 260 .* 8 heads"),
        ({"decoder": {"num_layers": 3, "eval_layers": 4}}, "eval_layers .* 3"),
        ({"decoder": {"points": [4, 0, 4]}}, "at least one point"),
        ({"decoder": {"points": [6, 6]}}, "points is for 2 levels, the backbone gives 3"),
        ({"decoder": {"bins": 32}}, "bins 32: expected an odd number"),
        ({"decoder": {"activation": "tanh"}}, "activation"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tree, message):
    with pytest.raises(UsageError, match=message):
        validated(DFINEConfig, tree, "a recipe")
