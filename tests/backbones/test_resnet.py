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


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("size", [(64, 96), (65, 37)])
def test_variant_b_has_the_same_sizes_in_any_choice_of_stages(depth, size):
    config = ResNetConfig(depth=depth, width=8, variant="b", stages=(1, 2, 4))
    maps = ResNet(config).eval()(torch.rand(1, 3, *size))
    assert config.strides == (4, 8, 32)
    assert [each.shape[1] for each in maps] == list(config.channels)
    for each, stride in zip(maps, config.strides, strict=True):
        assert each.shape[2:] == tuple(-(-side // stride) for side in size)


def test_variant_b_projects_only_where_size_or_channels_change():
    def first(depth):
        return [block[0].shortcut for block in ResNet(ResNetConfig(depth=depth, width=8, variant="b")).stages]

    assert [isinstance(each, nn.Identity) for each in first(18)] == [True, False, False, False]
    assert [each.conv.stride[0] for each in first(50)] == [1, 2, 2, 2]


def test_a_dilated_last_stage_keeps_the_size_and_the_weights_keep_their_shapes():
    plain, dilated = (
        ResNet(ResNetConfig(depth=50, width=8, variant="b", stages=(3, 4), dilated_last=each)).eval()
        for each in (False, True)
    )
    dilated.load_state_dict(plain.state_dict())
    x16, x32 = dilated(torch.rand(1, 3, 70, 90))
    assert x16.shape[2:] == x32.shape[2:] == (5, 6)
    assert [block.conv2.conv.dilation[0] for block in dilated.stages[3]] == [1, 2, 2]
    assert ResNetConfig(stages=(3, 4), dilated_last=True).strides == (16, 16)


def test_stages_after_the_last_one_given_out_are_not_built():
    assert len(ResNet(ResNetConfig(depth=18, width=8, stages=(1, 2))).stages) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stages": (4, 2)}, "fine to coarse"),
        ({"depth": 18, "dilated_last": True}, "bottlenecks"),
        ({"stages": ()}, "at least 1"),
    ],
)
def test_what_no_resnet_can_do_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ResNetConfig(**settings)
