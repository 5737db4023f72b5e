import pytest
import torch
from torch import nn

from detr.backbones.vit import SIZES, Rotation, ViT, ViTConfig
from detr.config import validated
from detr.errors import UsageError


@pytest.mark.parametrize("size", [(64, 96), (65, 37), (1, 1)])
def test_maps_have_strides_8_16_32_rounded_up(size):
    config = ViTConfig(size="tiny", layers=(1, 2, 3), detail=4, out=8)
    maps = ViT(config).eval()(torch.rand(1, 3, *size))
    assert [each.shape[1] for each in maps] == list(config.channels)
    for each, stride in zip(maps, config.strides, strict=True):
        assert each.shape[2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize("layers", [(3, 2, 1), (1, 1, 2), (0, 1, 2), (4, 8, 13)])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(UsageError, match="expected three of 1 to 12, rising"):
        validated(ViTConfig, {"layers": layers}, "backbone")


def test_an_attention_of_turned_queries_and_keys_sees_distances_not_places():
    rotation = Rotation(16, rescaled=False).eval()
    sines, cosines = rotation((1, 8), torch.device("cpu"))
    query, key = torch.randn(16), torch.randn(16)

    def turned(x, place):
        left, right = x.chunk(2)
        return x * cosines[place] + torch.cat([-right, left]) * sines[place]

    products = [turned(query, place) @ turned(key, place + 2) for place in range(6)]
    torch.testing.assert_close(torch.stack(products), products[0].expand(6))


def test_places_are_drawn_nearer_or_farther_only_in_the_training_of_dinov3():
    for rescaled, training in ((True, True), (True, False), (False, True)):
        rotation = Rotation(16, rescaled=rescaled).train(training)
        first, second = (rotation((2, 3), torch.device("cpu"))[0] for _ in range(2))
        assert torch.equal(first, second) != (rescaled and training)


def test_the_bias_of_the_keys_has_no_part_in_dinov3():
    maps = []
    for change in (0.0, 1.0):
        torch.manual_seed(0)
        network = ViT(ViTConfig(size="S", layers=(1, 2, 3), detail=4, out=8)).eval()
        with torch.no_grad():
            for block in network.stages:
                block.attention.project_in.bias[384:768] += change
        maps.append(network(torch.ones(1, 3, 32, 32)))
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_only_dinov3_has_registers_scales_and_a_last_norm(size):
    with torch.device("meta"):
        network = ViT(ViTConfig(size=size))
    dinov3 = size.startswith("S")
    assert (network.registers is not None) == (network.stages[0].scale1 is not None) == dinov3
    assert isinstance(network.norm, nn.LayerNorm) == dinov3
