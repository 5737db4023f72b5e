import pytest
import torch
from torch import nn

from detr.models.lite_encoder import LiteEncoder, LiteEncoderConfig


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return LiteEncoder(LiteEncoderConfig(channels=16), [12]).eval()


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 3)])
def test_one_map_becomes_two_of_its_size_and_of_half_of_it_rounded_up(encoder, size):
    fine, coarse = encoder([torch.rand(2, 12, *size)])
    assert fine.shape == (2, 16, *size)
    assert coarse.shape == (2, 16, *(-(-side // 2) for side in size))


def test_every_place_learns_of_every_other(encoder):
    x = torch.rand(1, 12, 32, 32, requires_grad=True)
    fine, _ = encoder([x])
    (gradient,) = torch.autograd.grad(fine[0, :, 0, 0].sum(), x)
    assert gradient[0, :, -1, -1].abs().sum() > 0


def test_padding_has_no_part_in_the_mean(encoder):
    averages = []
    encoder.spread.register_forward_pre_hook(lambda module, inputs: averages.append(inputs[0]))
    encoder.coarsen = nn.AvgPool2d(1, stride=2)
    encoder.projections[0] = nn.Identity()
    x = torch.rand(1, 16, 4, 6)
    padding = torch.zeros(1, 4, 6, dtype=torch.bool)
    padding[..., 4:] = True
    encoder([x], padding)
    coarse = x[..., ::2, ::2]
    torch.testing.assert_close(averages[0] - coarse, coarse[..., :2].mean((2, 3), keepdim=True).expand_as(coarse))


def test_an_image_that_is_all_padding_gives_numbers(encoder):
    for each in encoder([torch.rand(1, 12, 4, 4)], torch.ones(1, 4, 4, dtype=torch.bool)):
        assert each.isfinite().all()


def test_an_image_that_is_all_padding_leaves_the_others_of_its_batch_alone(encoder):
    x, padding = torch.rand(3, 12, 4, 4), torch.zeros(3, 4, 4, dtype=torch.bool)
    padding[1] = True
    for together, alone in zip(encoder([x], padding), encoder([x[2:]]), strict=True):
        torch.testing.assert_close(together[2:], alone)


def test_the_coarse_map_has_what_was_spread_and_what_the_fine_one_says(encoder):
    seen = {}
    for name in ("spread", "downsample"):
        getattr(encoder, name).register_forward_hook(lambda *call, name=name: seen.update({name: call[-1]}))
    encoder.bottom_up.register_forward_pre_hook(lambda module, inputs: seen.update(bottom_up=inputs[0]))
    encoder([torch.rand(1, 12, 4, 6)])
    torch.testing.assert_close(seen["bottom_up"], seen["spread"] + seen["downsample"])
