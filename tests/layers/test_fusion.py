import pytest
import torch
from torch import nn

from detr.layers.fusion import CSPBlock, ELANBlock, JointCSPBlock, LeanDownsample


def of_random_norms(module):
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.running_mean, -0.5, 0.5)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
            nn.init.uniform_(each.weight, 0.5, 1.5)
    return module.double().eval()


def elan(channels_in, **kwargs):
    return ELANBlock(channels_in, 6, 8, block=lambda a, b: CSPBlock(a, b, b, 2), **kwargs)


@pytest.mark.parametrize(
    ("block", "channels"),
    [
        (CSPBlock(5, 6, 8, 1), 8),
        (CSPBlock(5, 8, 8, 0), 8),
        (JointCSPBlock(5, 8, 2), 8),
        (elan(5), 8),
        (elan(5, convolutions=False), 8),
    ],
)
def test_fusion_blocks_keep_the_size(block, channels):
    assert of_random_norms(block)(torch.rand(1, 5, 7, 9).double()).shape == (1, channels, 7, 9)


def test_one_wide_convolution_is_two_narrow_ones():
    joint = of_random_norms(JointCSPBlock(5, 4, 2))
    apart = of_random_norms(CSPBlock(5, 4, 4, 2))
    state = joint.state_dict()
    for name in [name for name in state if name.startswith("both.")]:
        wide = state.pop(name)
        side, main = (wide, wide) if wide.dim() == 0 else wide.chunk(2)
        state[name.replace("both", "side")], state[name.replace("both", "main")] = side, main
    apart.load_state_dict(state)
    x = torch.rand(2, 5, 6, 6).double()
    torch.testing.assert_close(joint(x), apart(x))


def test_half_of_the_input_reaches_the_end_of_an_elan_block_untouched():
    """Without what the CSP blocks give, the block is two 1x1 convolutions."""
    block = of_random_norms(elan(5))
    with torch.no_grad():
        block.out.conv.weight[:, 16:] = 0
    x = torch.rand(1, 5, 4, 4).double()
    torch.testing.assert_close(block(x)[..., :1, :1], block(x[..., :1, :1]))
    assert not torch.allclose(of_random_norms(elan(5))(x)[..., :1, :1], elan(5).double().eval()(x[..., :1, :1]))


@pytest.mark.parametrize(("size", "half"), [(8, 4), (7, 4), (1, 1)])
def test_lean_downsampling_halves_the_size_without_mixing_in_space_and_channels_at_once(size, half):
    block = of_random_norms(LeanDownsample(6))
    assert block(torch.rand(1, 6, size, size).double()).shape == (1, 6, half, half)
    assert block.shrink.conv.weight.shape == (6, 1, 3, 3)


def test_a_csp_block_of_ones_by_hand():
    """silu(x) by both ways, added; then once more silu where a convolution changes the channels."""
    silu = nn.functional.silu
    x = torch.tensor([-1.0, 0.5, 2.0]).view(1, 1, 1, 3)
    same, wider = CSPBlock(1, 1, 1, 0).eval(), CSPBlock(1, 1, 2, 0).eval()
    for module in (*same.modules(), *wider.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    torch.testing.assert_close(same(x), 2 * silu(x), rtol=1e-4, atol=0)
    torch.testing.assert_close(wider(x), silu(2 * silu(x)).expand(1, 2, 1, 3), rtol=1e-4, atol=0)
