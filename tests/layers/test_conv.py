import pytest
import torch
from torch import nn

from detr.layers.conv import AffineReLU, ConvNorm, FrozenBatchNorm2d, RepVGGBlock


def unsettle(module):
    """Statistics and affine parts that are not the neutral ones."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
            for tensor in (norm.weight, norm.running_var):
                tensor.data.uniform_(0.5, 1.5)
            for tensor in (norm.bias, norm.running_mean):
                tensor.data.normal_()
    return module.double().eval()


def test_a_frozen_norm_is_a_batch_norm_in_evaluation():
    norm = unsettle(nn.BatchNorm2d(5))
    frozen = FrozenBatchNorm2d(5).double()
    frozen.load_state_dict(norm.state_dict())  # with how many batches it has seen, which is left out
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(frozen.train()(x), norm(x))


def test_a_frozen_norm_has_nothing_to_learn_and_keeps_its_statistics_in_training():
    frozen = FrozenBatchNorm2d(3).train()
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    frozen(torch.randn(2, 3, 4, 4))
    assert not list(frozen.parameters())
    torch.testing.assert_close(frozen.state_dict(), before)


@pytest.mark.parametrize(
    "block",
    [
        ConvNorm(4, 6, kernel=3, stride=2, activation=nn.ReLU()),
        ConvNorm(4, 6, kernel=3, dilation=2),
        ConvNorm(4, 6, frozen_norm=True),
        ConvNorm(4, 4, kernel=3, groups=4),
        RepVGGBlock(4, nn.SiLU()),
    ],
    ids=["conv", "dilated", "frozen", "depthwise", "repvgg"],
)
def test_fusing_changes_nothing_but_the_rounding(block):
    block = unsettle(block)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    before = block(x)
    block.fuse()
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-12)
    block.fuse()  # a second time changes nothing
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-12)


def test_a_fused_block_is_one_convolution():
    block = unsettle(RepVGGBlock(4, nn.SiLU()))
    block.fuse()
    assert [name for name, _ in block.named_parameters()] == ["fused.weight", "fused.bias"]


def test_an_affine_relu_starts_as_a_relu_and_learns_a_scale_and_a_shift():
    block = AffineReLU().requires_grad_(False)
    x = torch.tensor([-1.0, 2.0])
    assert block(x).tolist() == [0, 2]
    block.scale.fill_(3)
    block.bias.fill_(-1)
    assert block(x).tolist() == [-1, 5]


def test_norms_learn_unless_they_are_to_be_frozen():
    assert len(list(ConvNorm(4, 6).parameters())) == 3 and len(list(ConvNorm(4, 6, frozen_norm=True).parameters())) == 1
