import pytest
import torch
from torch import nn

from detr.layers.conv import ConvNorm, RepVGGBlock
from detr.models.hybrid_encoder import HybridEncoder, HybridEncoderConfig

FEATURES = [torch.rand(1, channels, size, size + 1) for channels, size in ((6, 12), (8, 6), (10, 3))]


def encoder(**settings):
    config = HybridEncoderConfig(channels=8, heads=2, hidden=16, **{"depth": 0.34, **settings})
    return HybridEncoder(config, [6, 8, 10]).eval()


@pytest.mark.parametrize("fusion", ["csp", "elan", "elan-joint", "elan-short"])
@pytest.mark.parametrize("merge", ["concatenate", "sum"])
def test_every_kind_of_fusion_gives_maps_of_the_sizes_it_was_given(fusion, merge):
    maps = encoder(fusion=fusion, merge=merge)(FEATURES)
    assert [each.shape for each in maps] == [(1, 8, *each.shape[2:]) for each in FEATURES]


def test_every_map_reaches_every_other():
    features = [each.clone().requires_grad_() for each in FEATURES]
    for each in encoder(fusion="elan")(features):
        gradients = torch.autograd.grad(each.sum(), features, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_maps_of_the_right_width_may_come_in_as_they_are():
    assert isinstance(encoder(project="unequal").projections[1], nn.Identity)
    assert not isinstance(encoder().projections[1], nn.Identity)


def test_two_levels_have_one_step_each_way():
    config = HybridEncoderConfig(channels=8, heads=2, hidden=16, fusion="elan", depth=0.5, expansion=0.34)
    two = HybridEncoder(config, [8, 10]).eval()
    assert len(two.top_down) == len(two.bottom_up) == len(two.laterals) == 1
    assert [each.shape[2] for each in two(FEATURES[1:])] == [6, 3]


@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
def test_channel_attention_follows_every_fusion_block(kind):
    torch.manual_seed(0)
    attending = encoder(channel_attention=kind)
    maps = attending(FEATURES)
    assert [each.shape for each in maps] == [(1, 8, *each.shape[2:]) for each in FEATURES]
    blocks = [*attending.top_down, *attending.bottom_up]
    assert [len(block) for block in blocks] == [2, 2, 2, 2]
    assert all(sum(parameter.numel() for parameter in block[1].parameters()) for block in blocks)


@pytest.mark.parametrize("fusion", ["csp", "elan"])
@pytest.mark.parametrize("merge", ["concatenate", "sum"])
def test_arranged_for_inference_it_gives_the_same_maps(fusion, merge):
    torch.manual_seed(0)
    folded = encoder(fusion=fusion, merge=merge).double()
    features = [each.double() for each in FEATURES]
    expected = folded(features)
    for module in folded.modules():
        if isinstance(module, (ConvNorm, RepVGGBlock)):
            module.fuse()
    folded.rearrange()
    for given, each in zip(folded(features), expected, strict=True):
        torch.testing.assert_close(given, each, rtol=1e-10, atol=1e-10)


def test_a_projection_is_taken_in_where_that_saves_multiplications():
    """6 -> 8 channels, then 16 or 32 from 8: 6 * 16 < 6 * 8 + 8 * 16; but from 40: 40 * 32 > 40 * 8 + 8 * 32."""

    def projections(channels_in, expansion):
        config = HybridEncoderConfig(channels=8, heads=2, hidden=16, depth=0.34, expansion=expansion)
        encoder = HybridEncoder(config, [channels_in, 10]).eval()
        for module in encoder.modules():
            if isinstance(module, (ConvNorm, RepVGGBlock)):
                module.fuse()
        encoder.rearrange()
        return [type(each) for each in encoder.projections]

    assert projections(6, 1.0) == [nn.Identity, ConvNorm]
    assert projections(40, 2.0) == [ConvNorm, ConvNorm]


def test_without_it_the_names_are_the_official_ones():
    assert "top_down.0.main.conv.weight" in encoder().state_dict()
