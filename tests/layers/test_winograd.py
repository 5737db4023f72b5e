import copy

import pytest
import torch
from torch import nn

from detr.layers import winograd
from detr.layers.conv import ConvNorm, RepVGGBlock
from detr.layers.packed import PackedConv, pack, packable
from detr.layers.winograd import WinogradConv, fits, use_tiles


def convolution(channels=128, **settings):
    torch.manual_seed(0)
    return nn.Conv2d(channels, 130, 3, **{"padding": 1} | settings).requires_grad_(False)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 11), (16, 9)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_computes_the_convolution_at_every_size(size, layout):
    conv = convolution()
    images = torch.randn(2, 128, *size).contiguous(memory_format=layout)
    torch.testing.assert_close(WinogradConv(conv)(images), conv(images), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_in_pieces_it_computes_the_same(images, rows, monkeypatch):
    conv = WinogradConv(convolution())
    maps = torch.randn(images, 128, 18, 7)
    whole = conv(maps)
    monkeypatch.setattr(winograd, "_BYTES_AT_ONCE", rows * 2 * 36 * 128 * 4)
    parts, of_tiles = [], conv._of_tiles
    monkeypatch.setattr(conv, "_of_tiles", lambda padded: parts.append(padded.shape) or of_tiles(padded))
    torch.testing.assert_close(conv(maps), whole, rtol=1e-5, atol=1e-5)
    assert len(parts) == images * -(-5 // rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2},
        {"padding": 0},
        {"padding": "same"},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"bias": False},
        {"padding_mode": "reflect"},
        {"channels": 126},
        {"dtype": torch.float64},
    ],
)
def test_other_convolutions_stay(settings):
    assert fits(convolution())
    assert not fits(convolution(**settings))
    assert not fits(nn.Conv2d(128, 128, 1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    blocks = [
        ConvNorm(3, 128, kernel=3),
        ConvNorm(128, 128, kernel=3, activation=nn.ReLU()),
        RepVGGBlock(128, nn.SiLU()),
    ]
    for block in blocks:
        block.eval().fuse()
    return nn.Sequential(*blocks).requires_grad_(False)


def test_wide_convolutions_of_a_folded_network_are_replaced(network):
    images = torch.randn(1, 3, 9, 9)
    expected = network(images)
    assert use_tiles(network) == 2
    assert isinstance(network[1].conv, WinogradConv) and isinstance(network[2].fused, WinogradConv)
    torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not packable(), reason="this processor or this PyTorch packs no convolutions")
def test_its_products_are_packed(network):
    use_tiles(network)
    as_was = copy.deepcopy(network)
    assert pack(network) == 3
    assert isinstance(network[1].conv.products, PackedConv)
    for size in [(1, 3, 9, 9), (2, 3, 16, 20)]:
        images = torch.randn(size)
        torch.testing.assert_close(network(images), as_was(images), rtol=1e-5, atol=1e-5)
    shortcut = torch.randn(1, 128, 9, 9)
    x = torch.randn(1, 128, 9, 9)
    expected = torch.relu(as_was[1](x) + shortcut)
    torch.testing.assert_close(network[1].residual(x, shortcut, nn.ReLU()), expected, rtol=1e-5, atol=1e-5)
