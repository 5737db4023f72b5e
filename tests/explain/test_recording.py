"""What is kept of a pass: it is what happened, and nothing happens otherwise for it."""

import pytest
import torch

from detr.errors import UsageError
from detr.explain.attention import points_of, weights_of
from detr.explain.readings import said_by_layers
from detr.explain.recording import DeformableCall, DenseCall, recording

PRESETS = (
    "detr-r50",
    "deformable-detr-r50",
    "deformable-detr-r50-two-stage",
    "dino-r50-4scale",
    "rtdetrv2-r18-dsp",
    "dfine-n",
    "deimv2-atto",
)
KEEP_ASPECT = PRESETS[:4]
LAYERS = 2


@pytest.fixture(scope="module", params=PRESETS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name, small_network):
    """In float64, so that what is equal shows as equal."""
    return small_network(name, num_layers=LAYERS).double()


@pytest.fixture(scope="module")
def images(name):
    """Two; where padding is known the second fills a part of the frame."""
    images = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    if name not in KEEP_ASPECT:
        return images, None
    padding = torch.zeros(2, 96, 128, dtype=torch.bool)
    padding[1, 50:], padding[1, :, 70:] = True, True
    return images.masked_fill(padding[:, None], 0), padding


@pytest.fixture(scope="module")
def kept(network, images):
    with recording(network) as kept:
        network(*images)
    return kept


def brought_out(call, image, queries):
    """What the weights make of the values."""
    heads, weights = call.module.heads, weights_of(call, image, queries)
    if isinstance(call, DenseCall):
        channels = call.value.shape[-1]
        matrix, bias = call.module.project_in.weight[2 * channels :], call.module.project_in.bias[2 * channels :]
        value = torch.nn.functional.linear(call.value[image], matrix, bias)
    else:
        project = call.module.project_value
        value = call.memory[image] if project is None else project(call.memory[image])
    value = value.unflatten(-1, (heads, -1))
    return call.module.project_out(torch.einsum("nms,smd->nmd", weights, value).flatten(1))


def test_weights_times_values_are_what_each_layer_gave(kept):
    assert len(kept.looks) == LAYERS
    for call in kept.looks:
        for image in (0, 1):
            queries = range(call.output.shape[1])
            torch.testing.assert_close(brought_out(call, image, queries), call.output[image], rtol=1e-9, atol=1e-11)


def test_so_are_those_of_the_encoders_dense_attention(kept, name):
    assert bool(kept.encoder) == (name in ("detr-r50", "rtdetrv2-r18-dsp", "dfine-n"))
    for call in kept.encoder:
        assert call.output.shape[1] == kept.coarsest[0] * kept.coarsest[1]
        for image in (0, 1):
            queries = range(call.output.shape[1])
            torch.testing.assert_close(brought_out(call, image, queries), call.output[image], rtol=1e-9, atol=1e-11)


def test_weights_sum_to_one_over_what_is_looked_at(kept):
    for call in kept.looks:
        summed = weights_of(call, 1, range(5)).sum(-1)
        if isinstance(call, DeformableCall):
            assert (summed <= 1 + 1e-9).all(), "what lies outside is lost"
            summed = points_of(call, 1, range(5))[1].sum(-1)
        torch.testing.assert_close(summed, torch.ones_like(summed), rtol=0, atol=1e-9)


def test_nothing_comes_in_from_padding(kept, name):
    if name in KEEP_ASPECT:
        for call in kept.looks:
            padding = ~call.mask[1, 0] if isinstance(call, DenseCall) else call.padding[1]
            assert padding.any() and (weights_of(call, 1, range(5))[..., padding] == 0).all()


def test_layers_say_what_the_network_does_with_fewer_layers(network, images, kept):
    layers = said_by_layers(kept, network)
    assert len(layers) == LAYERS
    for count in (1, LAYERS):
        network.set_layers(count)
        last = network(*images).layers[-1]
        assert torch.equal(layers[count - 1].boxes, last.boxes)
        assert torch.equal(layers[count - 1].logits, last.logits)
    assert not any(module.training for module in network.modules())


def test_recording_changes_nothing_and_leaves_nothing_behind(network, images):
    before = network(*images).layers[-1]
    hooks = sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in network.modules())
    with recording(network):
        during = network(*images).layers[-1]
    after = sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in network.modules())
    assert torch.equal(before.logits, during.logits) and torch.equal(before.boxes, during.boxes)
    assert after == hooks == 0


def test_only_our_networks_are_recorded():
    with pytest.raises(UsageError, match="a Linear can't be explained"), recording(torch.nn.Linear(1, 1)):
        pass
