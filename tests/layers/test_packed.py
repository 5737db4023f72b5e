import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from detr.layers import packed
from detr.layers.conv import ConvNorm, RepVGGBlock
from detr.layers.packed import PackedConv, PackedLinear, convolve_linears, pack, packable

pytestmark = pytest.mark.skipif(not packable(), reason="this processor or this PyTorch packs no convolutions")


def folded(*blocks):
    network = nn.Sequential(*blocks).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for block in network:
        block.fuse()
    return network.requires_grad_(False)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return folded(
        ConvNorm(3, 16, kernel=3, stride=2, activation=nn.ReLU()),
        ConvNorm(16, 16, kernel=3, groups=16, activation=nn.SiLU()),
        ConvNorm(16, 24, activation=nn.GELU()),
        ConvNorm(24, 16, kernel=3, dilation=2),
        RepVGGBlock(16, nn.SiLU()),
    )


@pytest.mark.parametrize("size", [(9, 11), (1, 1)])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.SiLU()])
def test_a_residual_is_added_in_the_same_pass(activation, size):
    torch.manual_seed(0)
    (block,) = folded(ConvNorm(8, 16, kernel=3))
    as_was = copy.deepcopy(block)
    pack(block)
    x, shortcut = torch.randn(2, 8, *size), torch.randn(2, 16, *size)
    given = shortcut.clone()
    expected = activation(as_was(x) + shortcut)
    torch.testing.assert_close(block.residual(x, shortcut, activation), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(as_was.residual(x, shortcut, activation), expected, rtol=0, atol=0)
    assert torch.equal(shortcut, given)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_packed_convolutions_compute_what_they_did_at_every_size(network, layout):
    as_was = copy.deepcopy(network)
    assert pack(network) == 5
    for size in [(2, 3, 32, 48), (1, 3, 17, 23), (2, 3, 32, 48)]:
        images = torch.randn(size).contiguous(memory_format=layout)
        torch.testing.assert_close(network(images), as_was(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [2, 300])
def test_a_packed_linear_layer_computes_what_it_did_for_every_number_of_rows(first):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 8)).requires_grad_(False)
    as_was = copy.deepcopy(network)
    assert pack(network) == 1  # the small one stays as it is
    for rows in [(first, 64), (3, 5, 64), (0, 64), (1, 300, 64)]:
        x = torch.randn(rows)
        torch.testing.assert_close(network(x), as_was(x), rtol=1e-5, atol=1e-5)
    lying = torch.randn(1, 64, 300).transpose(1, 2)
    torch.testing.assert_close(network(lying), as_was(lying), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [PackedConv, PackedLinear])
def test_threads_that_come_to_a_layer_together_store_it_once(layer, monkeypatch):
    conv = layer is PackedConv
    x = torch.randn(4, 64, 3, 3) if conv else torch.randn(4, 64)
    plain = (nn.Conv2d(64, 256, 1) if conv else nn.Linear(64, 256)).requires_grad_(False)
    ready = PackedConv(plain, nn.Identity(), torch.float32) if conv else PackedLinear(plain, torch.float32)
    together, stored = threading.Barrier(4), []
    pack_once = ready.pack_once

    def slowly(store):
        def stored_slowly(weight):
            stored.append(weight)
            time.sleep(0.05)  # the others are here by now
            return store(weight)

        together.wait(20)
        pack_once(stored_slowly)

    monkeypatch.setattr(ready, "pack_once", slowly)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ready(x), range(4)))
    assert len(stored) == 1
    for answer in answers:
        torch.testing.assert_close(answer, plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(300, 64), (3, 5, 64)])
def test_a_linear_layer_as_a_convolution_computes_what_it_did(shape):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 8)).requires_grad_(False)
    as_was = copy.deepcopy(network)
    assert convolve_linears(network) == 1  # the small one stays as it is
    x = torch.randn(shape)
    torch.testing.assert_close(network(x), as_was(x), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_computed_in_and_answered_in(network):
    as_was = copy.deepcopy(network)
    pack(network, torch.bfloat16)
    images = torch.randn(2, 3, 32, 32)
    answer = network(images)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.float(), as_was(images), rtol=0.05, atol=0.05)


def test_only_what_is_folded_and_has_a_known_activation_is_packed():
    network = nn.ModuleList([ConvNorm(3, 4), RepVGGBlock(4, nn.ReLU()), ConvNorm(3, 4, activation=nn.Tanh())])
    network[2].fuse()
    assert pack(network) == 0
    assert not any(isinstance(module, PackedConv) for module in network.modules())


def test_operators_with_other_arguments_are_not_used(monkeypatch):
    monkeypatch.setitem(packed._OPERATORS, "_convolution_pointwise", ("X", "W"))
    assert not packable()


def test_other_processors_are_not_asked(monkeypatch):
    monkeypatch.setattr(packed.platform, "machine", lambda: "arm64")
    assert not packable()
