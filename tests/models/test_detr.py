from dataclasses import replace

import pytest
import torch
from torch import nn

from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.config import validated
from detr.criterion import criterion_for
from detr.errors import UsageError
from detr.layers.conv import ConvNorm
from detr.models.detr import DecoderConfig, DETRConfig, DETRNetwork, EncoderConfig
from detr.models.postprocess import select
from detr.models.presets import preset
from detr.records import Output, Predictions

CONFIG = DETRConfig(
    slots="id",
    num_queries=6,
    channels=16,
    backbone=ResNetConfig(depth=10, width=8, variant="b", stages=(4,), frozen_norms=True, frozen_stages=2),
    encoder=EncoderConfig(heads=2, hidden=24, num_layers=2),
    decoder=DecoderConfig(heads=4, hidden=24, num_layers=3),
)
CLASSES = Classes((1, 4, 5), ("cat", "dog", "bird"))


@pytest.fixture
def small():
    return settled(DETRNetwork(CONFIG, CLASSES))


def settled(network):
    """Norms that have seen something, and boxes and queries that differ, so that nothing is the same by default."""
    for module in network.modules():
        if isinstance(module, ConvNorm):
            nn.init.uniform_(module.norm.running_var, 0.5, 1.5)
            nn.init.normal_(module.norm.running_mean, std=0.1)
    nn.init.normal_(network.queries.weight, std=8)
    return network.eval()


def images(height=70, width=100):
    return torch.rand(2, 3, height, width)


def test_the_default_is_the_paper_s_main_model():
    main = preset("detr-r50")
    assert DETRConfig(slots="id") == main
    assert (main.input.short, main.input.long, main.input.keeps_aspect) == (800, 1333, True)


def test_the_other_presets_differ_in_depth_and_dilation_only():
    main = preset("detr-r50")
    for name, depth, dilated in (("detr-r50-dc5", 50, True), ("detr-r101", 101, False), ("detr-r101-dc5", 101, True)):
        backbone = main.backbone.model_copy(update={"depth": depth, "dilated_last": dilated})
        assert preset(name) == main.model_copy(update={"backbone": backbone})


def test_every_class_has_the_row_of_its_id_and_the_last_says_no_object(small):
    output = small(images())
    assert len(output.layers) == 1
    assert output.layers[-1].logits.shape == (2, 6, 5 + 1 + 1)
    assert small.slots == (1, 4, 5) and small.scoring.exclusive
    by_index = DETRNetwork(CONFIG.model_copy(update={"slots": "index"}), CLASSES)
    assert by_index.decoder.score_head.out_features == 3 + 1


def test_each_query_is_one_detection_of_its_best_class_or_none(small):
    output = Output((Predictions(3 * torch.randn(2, 6, 7), torch.rand(2, 6, 4)),))
    found = select(output, [(70, 100)] * 2, scoring=small.scoring)
    for index, probabilities in enumerate(output.layers[-1].logits.softmax(-1)[..., :-1]):
        said = [(float(p.max()), int(p.argmax())) for p in probabilities]
        expected = sorted((each for each in said if each[1] in small.slots), reverse=True)
        assert found[index].scores.tolist() == pytest.approx([score for score, _ in expected])
        assert [small.slots[label] for label in found[index].labels] == [slot for _, slot in expected]
    assert 0 < len(found[0]) < 6  # some say a slot that is no class's


def test_training_predicts_after_each_layer_and_evaluation_says_the_last(small):
    given = images()
    evaluated = small(given).layers
    for module in small.modules():
        if hasattr(module, "dropout"):
            module.dropout = nn.Identity() if isinstance(module.dropout, nn.Module) else 0.0
    trained = small.train()(given).layers
    assert len(trained) == 3 and len(evaluated) == 1
    torch.testing.assert_close(trained[-1].logits, evaluated[-1].logits)
    torch.testing.assert_close(trained[-1].boxes, evaluated[-1].boxes)


def test_dropout_is_for_training(small):
    given = images()
    first, second = (small.train()(given).layers[-1].logits for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-3)
    first, second = (small.eval()(given).layers[-1].logits for _ in range(2))
    torch.testing.assert_close(first, second)


def test_a_padded_image_is_answered_as_if_it_came_alone(small):
    small.double()
    map_, padding = torch.randn(2, 16, 3, 4).double(), torch.ones(2, 3, 4, dtype=torch.bool)
    padding[0, :2, :3] = padding[1] = False
    memory, alone = small.encoder(map_, padding), small.encoder(map_[:1, :, :2, :3])
    torch.testing.assert_close(memory.tokens[:1, ~padding[0].flatten()], alone.tokens)
    queries = small.queries.weight
    torch.testing.assert_close(small.decoder(queries, memory)[-1].logits[:1], small.decoder(queries, alone)[-1].logits)


def test_padding_is_shrunk_to_the_map_and_hidden(small):
    given = images(64, 96)
    padding = torch.zeros(2, 64, 96, dtype=torch.bool)
    torch.testing.assert_close(small(given, padding).layers[-1].logits, small(given).layers[-1].logits)
    padding[1, :, 64:] = True
    seen = []
    small.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    small(given, padding)
    assert seen[0].int().tolist() == [[[0, 0, 0]] * 2, [[0, 0, 1]] * 2]


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (1, 1)])
def test_any_size_of_image_will_do(small, size):
    layer = small(torch.rand(1, 3, *size)).layers[-1]
    assert layer.boxes.shape == (1, 6, 4) and layer.boxes.isfinite().all()


def test_fewer_queries_are_the_first_ones_and_the_deployed_copy_keeps_no_others(small):
    given = images()
    everything = small(given).layers[-1]
    small.set_queries(2)
    fewer = small(given).layers[-1]
    assert fewer.boxes.shape[1] == 2
    assert not torch.allclose(fewer.logits, everything.logits[:, :2], atol=1e-4)  # they miss each other
    deployed = small.deploy()
    assert len(deployed.queries.weight) == deployed.config.num_queries == 2
    torch.testing.assert_close(deployed(given).layers[-1].logits, fewer.logits, rtol=0, atol=1e-4)
    small.set_queries(6)
    torch.testing.assert_close(small(given).layers[-1].logits, everything.logits)
    with pytest.raises(UsageError, match="7 queries: expected 1 to 6"):
        small.set_queries(7)


def test_fewer_layers_are_those_that_training_has_taught(small):
    given = images()
    small.set_layers(2)
    shorter = small(given).layers[-1]
    deployed = small.deploy()
    assert len(deployed.decoder.layers) == 2
    torch.testing.assert_close(deployed(given).layers[-1].boxes, shorter.boxes, rtol=0, atol=1e-5)


def test_the_first_step_reaches_everything_that_learns(small, targets):
    network = small.train()
    losses = criterion_for(network)(network(torch.rand(3, 3, 70, 90)), targets)
    sum(losses.values()).backward()
    idle = {name for name, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # Attention doesn't see what all keys have in common, and at the start queries have nothing to read in each other.
    first = ("decoder.layers.0.self_attention.", "decoder.layers.0.norm1.")
    assert {name for name in idle if not name.startswith(first)} == set()
    frozen = {name.split(".")[1] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "stages"}


def test_mixed_and_half_precision_keep_boxes_in_full_precision(small, targets):
    given = torch.rand(3, 3, 70, 90)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = small.train()(given)
    assert all(layer.boxes.dtype == torch.float32 for layer in output.layers)
    sum(criterion_for(small)(output, targets).values()).backward()
    assert all(p.grad.isfinite().all() for p in small.parameters() if p.requires_grad)
    padding = torch.zeros(3, 70, 90, dtype=torch.bool)
    padding[0, 40:] = True
    expected = small.eval()(given, padding).layers[-1]
    answer = small.half()(given.half(), padding).layers[-1]
    assert answer.boxes.dtype == torch.float32
    torch.testing.assert_close(answer.boxes, expected.boxes, rtol=0, atol=5e-3)


def test_roles_of_the_parts(small):
    assert small.heads() == [small.decoder.score_head, small.decoder.box_head]
    assert small.by_class() == [small.decoder.score_head]
    assert small.projecting() == [small.projection]


def test_matrices_start_spread_and_heads_as_pytorch_does_it():
    network = DETRNetwork(CONFIG.model_copy(update={"channels": 64}), CLASSES)
    attention = network.decoder.layers[0].cross_attention
    assert attention.project_in.weight.abs().max() <= (6 / (64 + 192)) ** 0.5
    assert attention.project_in.weight.abs().max() > 0.9 * (6 / (64 + 192)) ** 0.5
    assert not attention.project_in.bias.any() and not attention.project_out.bias.any()
    feed_forward = network.encoder.layers[0].feed_forward
    assert feed_forward.linear1.weight.abs().max() > 0.9 * (6 / (64 + 24)) ** 0.5
    assert feed_forward.linear1.bias.any()
    assert network.decoder.score_head.bias.abs().max() <= 1 / 8
    assert 0.8 < network.queries.weight.std() < 1.2


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"channels": 20}, "can't be shared among encoder.heads 8"),
        ({"decoder": {"num_layers": 2, "eval_layers": 3}}, "eval_layers is more than the 2 layers"),
        ({"num_queries": 5, "eval_queries": 6}, "eval_queries is more than the 5 queries"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tree, message):
    with pytest.raises(UsageError, match=message):
        validated(DETRConfig, tree, "recipe")


def test_targets_of_any_number_have_finite_losses(small, targets):
    network = small.train()
    output = network(torch.rand(3, 3, 64, 64))
    none = [replace(each, labels=each.labels[:0], boxes=each.boxes[:0]) for each in targets]
    for given in (targets, none):
        losses = criterion_for(network)(output, given)
        assert {name.rpartition("_")[0] if name[-1].isdigit() else name for name in losses} == {
            "loss_ce",
            "loss_bbox",
            "loss_giou",
        }
        assert all(value.isfinite() for value in losses.values())
