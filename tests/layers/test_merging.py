import pytest
import torch
from torch import nn

from detr.layers.conv import ConvNorm
from detr.layers.merging import MergingConv
from detr.layers.packed import pack, packable
from tests.elsewhere import DEVICE, elsewhere, sent

COARSE, FINE = torch.rand(2, 5, 4, 3).double(), torch.rand(2, 7, 8, 5).double()


def of_random_norms(module):
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.running_mean, -0.5, 0.5)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
    return module.double().eval().requires_grad_(False)


@pytest.fixture
def merging():
    torch.manual_seed(0)
    return of_random_norms(MergingConv((5, 6), 9, activation=nn.SiLU()))


@pytest.fixture
def projection():
    torch.manual_seed(1)
    return of_random_norms(ConvNorm(7, 6))


def test_what_is_taken_apart_on_a_gpu_is_computed_beside_it(monkeypatch):
    """Apple's know no float64."""
    conv, projection = MergingConv((5, 6), 9, activation=nn.SiLU()), ConvNorm(7, 6)
    for each in (conv, projection):
        each.eval().requires_grad_(False).fuse()
    with elsewhere(monkeypatch) as watching:
        sent(conv).take_apart(sent(projection))
        assert str(conv.of_fine.conv.weight.device) == DEVICE
        assert conv.of_fine.conv.weight.dtype == torch.float32 and not watching.wide


def test_the_first_map_is_enlarged_and_laid_beside_the_second():
    conv = of_random_norms(MergingConv((1, 1), 2))
    conv.norm = nn.Identity()
    conv.conv.weight.copy_(torch.eye(2)[..., None, None])
    coarse, fine = torch.tensor([[[[1.0, 2.0]]]]).double(), torch.tensor([[[[3.0, 4, 5, 6], [7, 8, 9, 10]]]]).double()
    expected = [[[1, 1, 2, 2], [1, 1, 2, 2]], [[3, 4, 5, 6], [7, 8, 9, 10]]]
    assert conv((coarse, fine))[0].tolist() == expected


def test_taken_apart_it_computes_the_same(merging, projection):
    fine = projection(FINE)
    expected = merging((COARSE, fine))
    merging.fuse()
    merging.take_apart()
    torch.testing.assert_close(merging((COARSE, fine)), expected, rtol=1e-12, atol=1e-12)


def test_it_takes_in_the_projection_of_the_second_map(merging, projection):
    expected = merging((COARSE, projection(FINE)))
    merging.fuse()
    projection.fuse()
    merging.take_apart(projection)
    torch.testing.assert_close(merging((COARSE, FINE)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not packable(), reason="this processor or this PyTorch packs no convolutions")
def test_its_parts_are_packed_and_it_stays_the_same(merging, projection):
    expected = merging((COARSE, projection(FINE))).float()
    merging.fuse()
    merging.take_apart()
    assert pack(merging.float()) == 2
    torch.testing.assert_close(merging((COARSE.float(), projection(FINE).float())), expected, rtol=1e-5, atol=1e-5)
