import pytest
import torch
from torch import nn

from detr.backbones.resnet import ResNet, ResNetConfig
from detr.layers.conv import FrozenBatchNorm2d


@pytest.mark.parametrize("depth", [10, 18, 50])
@pytest.mark.parametrize("size", [(64, 96), (65, 37), (1, 1)])
def test_maps_have_strides_8_16_32_rounded_up(depth, size):
    config = ResNetConfig(depth=depth, width=8)
    maps = ResNet(config).eval()(torch.rand(1, 3, *size))
    assert [each.shape[1] for each in maps] == list(config.channels)
    for each, stride in zip(maps, (8, 16, 32), strict=True):
        assert each.shape[2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize(("depth", "convolutions"), [(18, 16), (34, 32), (50, 48), (101, 99)])
def test_depth_counts_the_layers(depth, convolutions):
    with torch.device("meta"):
        network = ResNet(ResNetConfig(depth=depth))
    convolved = [name for name, module in network.stages.named_modules() if isinstance(module, nn.Conv2d)]
    assert len([name for name in convolved if "shortcut" not in name]) == convolutions


def test_only_the_first_block_of_a_stage_projects_its_shortcut():
    network = ResNet(ResNetConfig(depth=34, width=8))
    for stage in network.stages:
        assert isinstance(stage[0].shortcut.conv, nn.Conv2d)
        assert all(isinstance(block.shortcut, nn.Identity) for block in stage[1:])


def test_frozen_stages_do_not_learn():
    network = ResNet(ResNetConfig(depth=18, width=8, frozen_stages=2))
    learning = {name.split(".")[0] + name.split(".")[1] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"stages1", "stages2", "stages3"}


def test_frozen_norms_are_frozen_everywhere():
    network = ResNet(ResNetConfig(depth=50, width=8, frozen_norms=True))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert any(isinstance(module, FrozenBatchNorm2d) for module in network.modules())
