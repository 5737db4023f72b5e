import pytest
import torch
from torch import nn

from detr.backbones.hgnetv2 import SIZES, HGNetv2, HGNetv2Config
from detr.config import validated
from detr.errors import UsageError
from detr.layers.conv import AffineReLU, ConvNorm, FrozenBatchNorm2d


@pytest.mark.parametrize("name", ["Atto", "B0"])
@pytest.mark.parametrize("size", [(64, 96), (65, 37), (1, 1)])
def test_maps_have_the_strides_that_are_asked_for_rounded_up(name, size):
    config = HGNetv2Config(size=name, stages=(1, 3))
    maps = HGNetv2(config).eval()(torch.rand(1, 3, *size))
    assert [each.shape[1] for each in maps] == list(config.channels) == [64, SIZES[name].stages[2].outer]
    for each, stride in zip(maps, config.strides, strict=True):
        assert each.shape[2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize(
    ("stages", "said"), [((2, 3, 4), "Atto has 3"), ((3, 2), "fine to coarse"), ((2, 2), "once"), ((), "at least 1")]
)
def test_stages_that_are_not_there_are_refused(stages, said):
    with pytest.raises(UsageError, match=said):
        validated(HGNetv2Config, {"size": "Atto", "stages": stages}, "backbone")


@pytest.mark.parametrize("size", SIZES)
def test_light_convolutions_are_depthwise_and_only_in_the_late_stages(size):
    with torch.device("meta"):
        network = HGNetv2(HGNetv2Config(size=size, stages=(2, 3)))
    for level, stage in enumerate(network.stages):
        kinds = {type(layer) for block in stage.blocks for layer in block.layers}
        assert kinds == ({nn.Sequential} if level > 1 else {ConvNorm})
        depthwise = [layer[1].conv for block in stage.blocks for layer in block.layers if level > 1]
        assert all(conv.groups == conv.in_channels == conv.out_channels for conv in depthwise)


def test_paddles_names_of_the_large_sizes_mean_the_same_networks():
    assert (SIZES["L"], SIZES["X"], SIZES["H"]) == (SIZES["B4"], SIZES["B5"], SIZES["B6"])


def test_blocks_after_the_first_of_a_stage_add_their_input():
    network = HGNetv2(HGNetv2Config(size="B0")).eval()
    first, second = network.stages[2].blocks
    assert not first.residual and second.residual
    x = torch.rand(1, 512, 2, 2)
    nn.init.zeros_(second.excite.norm.weight)
    torch.testing.assert_close(second(x), x)


def test_affine_activations_start_as_plain_ones_and_stand_after_each_activation():
    torch.manual_seed(0)
    plain = HGNetv2(HGNetv2Config(size="Atto", stages=(3,))).eval()
    affine = HGNetv2(HGNetv2Config(size="Atto", stages=(3,), affine=True)).eval()
    affine.load_state_dict(plain.state_dict(), strict=False)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(affine(images), plain(images))
    count = sum(isinstance(module, nn.ReLU) for module in plain.modules())
    assert sum(isinstance(module, AffineReLU) for module in affine.modules()) == count


def test_frozen_stages_do_not_learn():
    network = HGNetv2(HGNetv2Config(size="B0", frozen_stages=2))
    learning = {".".join(name.split(".")[:2]) for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"stages.1", "stages.2", "stages.3"}


def test_frozen_norms_are_frozen_everywhere():
    network = HGNetv2(HGNetv2Config(size="B0", frozen_norms=True))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert any(isinstance(module, FrozenBatchNorm2d) for module in network.modules())


def test_folding_the_norms_changes_nothing_but_the_rounding():
    torch.manual_seed(0)
    network = HGNetv2(HGNetv2Config(size="Atto", stages=(2, 3), affine=True)).double().eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    images = torch.rand(2, 3, 37, 32, dtype=torch.float64)
    before = network(images)
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fuse()
    torch.testing.assert_close(network(images), before, rtol=1e-12, atol=1e-12)
