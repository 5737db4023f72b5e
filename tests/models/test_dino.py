import pytest
import torch
from torch import nn

from detr.backbones.resnet import ResNetConfig
from detr.classes import Classes
from detr.criterion import criterion_for
from detr.errors import UsageError
from detr.models import build_model
from detr.models.dino import DecoderConfig, DINOConfig, DINONetwork, EncoderConfig
from detr.models.presets import preset
from detr.records import Target

CLASSES = Classes((1, 4, 5), ("cat", "dog", "bird"))


def config(**changes):
    settings = {
        "slots": "id",
        "num_queries": 9,
        "num_denoising": 4,
        "backbone": ResNetConfig(depth=10, width=8, variant="b", frozen_norms=True, frozen_stages=2),
        "encoder": EncoderConfig(channels=32, heads=4, hidden=16, num_layers=1, points=2),
        "decoder": DecoderConfig(heads=2, hidden=16, num_layers=3, points=2),
    }
    return DINOConfig(**settings | changes)


@pytest.fixture
def small():
    network = DINONetwork(config(), CLASSES)
    nn.init.normal_(network.decoder.box_head.layers[-1].weight, std=0.3)
    return network


def images(height=75, width=101):
    padding = torch.zeros(2, height, width, dtype=torch.bool)
    padding[1, 50:] = padding[1, :, 64:] = True
    return torch.rand(2, 3, height, width).masked_fill(padding[:, None], 0), padding


def test_the_default_is_the_paper_s_main_model_and_the_other_preset_has_a_finer_level():
    main, finer = preset("dino-r50-4scale"), preset("dino-r50-5scale")
    assert DINOConfig(slots="id", input=main.input) == main
    assert (finer.encoder.levels, finer.backbone.stages) == (5, (1, 2, 3, 4))
    parts = {"encoder": finer.encoder, "backbone": finer.backbone}
    assert finer == main.model_copy(update=parts)


def test_five_levels_begin_at_a_stride_of_four():
    encoder = EncoderConfig(channels=32, levels=5, heads=4, hidden=16, num_layers=1, points=1)
    backbone = config().backbone.model_copy(update={"stages": (1, 2, 3, 4)})
    network = DINONetwork(config(encoder=encoder, backbone=backbone), CLASSES).eval()
    memory = network.encoder(network.backbone(torch.rand(1, 3, 64, 96)))
    assert memory.shapes == ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))
    assert network(torch.rand(1, 3, 64, 96)).layers[-1].boxes.shape == (1, 9, 4)


def test_training_has_noised_queries_beside_and_evaluation_none(small, targets):
    given = images()
    output = small(*given, targets[:2])
    assert [tuple(layer.logits.shape) for layer in output.layers] == [(2, 9, 6)] * 3
    assert output.denoising.layers[-1].boxes.shape == (2, 2 * 2 * 2, 4)  # 2 groups of 2 targets, and their negatives
    assert output.proposals.boxes.shape == (2, 9, 4)
    last = small.eval()(*given)
    assert len(last.layers) == 1 and last.denoising is None and last.proposals is None
    torch.testing.assert_close(last.layers[-1].boxes, output.layers[-1].boxes)


def test_an_image_is_answered_alike_alone_and_in_a_batch_and_padding_of_nothing_changes_nothing(small):
    small.eval()
    some, padding = images()
    together = small(some, padding).layers[-1].boxes
    for index in range(2):
        alone = small(some[index : index + 1], padding[index : index + 1]).layers[-1].boxes
        torch.testing.assert_close(alone[0], together[index])
    without = small(some).layers[-1].boxes
    torch.testing.assert_close(small(some, torch.zeros_like(padding)).layers[-1].boxes, without)
    assert (without[1] - together[1]).abs().max() > 1e-3


def test_the_loss_of_a_layer_teaches_the_layer_before_but_none_before_that(small):
    given = images()
    small(*given).layers[2].boxes.sum().backward()
    steps = [layer.cross_attention.project_out.weight.grad for layer in small.decoder.layers]
    assert all(step is not None for step in steps)  # by what goes on from layer to layer
    small.zero_grad()
    seen = []
    hook = small.decoder.box_head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    last = small(*given).layers[2].boxes
    hook.remove()
    moves_of_0, says_0, moves_of_1 = seen[1], seen[0], seen[3]
    found = torch.autograd.grad(last.sum(), [moves_of_1, moves_of_0, says_0], allow_unused=True)
    assert found[0].abs().sum() > 0 and found[1] is None and found[2] is None


def test_content_belongs_to_the_rank_of_a_proposal(small):
    seen = []
    small.eval().decoder.register_forward_pre_hook(lambda module, given: seen.append(given))
    small.queries.register_forward_hook(lambda module, given, output: seen.append(output))
    small(*images())
    proposals, (content, boxes, _) = seen
    torch.testing.assert_close(content, small.content.expand(2, -1, -1))
    torch.testing.assert_close(boxes, proposals.chosen.boxes)
    best = proposals.chosen.logits.amax(-1)
    assert (best[:, :-1] >= best[:, 1:]).all()


def test_every_parameter_that_may_learn_does(small, targets):
    for head in small.by_class():
        nn.init.normal_(head.weight, std=0.3)
    losses = criterion_for(small)(small(*images(), targets[:2]), targets[:2])
    sum(losses.values()).backward()
    still = [name for name, each in small.named_parameters() if each.requires_grad and each.grad is None]
    assert still == []


def test_without_targets_the_denoising_still_belongs_to_the_graph(small):
    output = small(*images(), [])
    assert output.denoising is None
    output.layers[-1].logits.sum().backward()
    assert (small.denoising.class_embedding.weight.grad == 0).all()


def test_fewer_layers_and_queries_and_the_deployed_network(small):
    small.eval()
    given = images()
    small.set_layers(2)
    small.set_queries(4)
    now = small(*given).layers[-1]
    assert now.boxes.shape == (2, 4, 4)
    deployed = small.deploy()
    assert deployed.denoising is None and len(deployed.decoder.layers) == 2
    torch.testing.assert_close(deployed(*given).layers[-1].boxes, now.boxes)
    with pytest.raises(UsageError, match="10 queries: expected 1 to 9"):
        small.set_queries(10)


def test_labels_are_noised_among_all_slots():
    network = DINONetwork(config(label_noise=1.0, num_denoising=4000), CLASSES)
    noised = network.denoising.noise([Target(torch.tensor([2]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))])
    share = (noised.labels == 5).double().mean()
    assert set(noised.labels.unique().tolist()) == set(range(6)) and 0.5 < share < 0.65


def test_its_heads_are_two_of_the_encoder_two_of_the_decoder_and_the_denoising():
    with torch.device("meta"):
        with_noise, without = (
            build_model(preset("dino-r50-4scale").model_copy(update={"num_denoising": count})) for count in (100, 0)
        )
    heads = with_noise.heads()
    assert len(heads) == 5 and heads[-1] is with_noise.denoising
    assert len(without.heads()) == 4 and without.denoising is None
