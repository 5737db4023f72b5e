import pytest
import torch
from torch import nn

from detr.errors import UsageError
from detr.layers.attention import CrossAttention, SelfAttention, groups_apart, may_look


def same(kind):
    """PyTorch's attention, and ours with its weights."""
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    ours = kind(16, 4).double()
    nn.init.normal_(theirs.in_proj_bias)
    ours.project_in.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
    ours.project_out.load_state_dict(theirs.out_proj.state_dict())
    return theirs, ours


@pytest.fixture
def theirs_and_ours():
    return same(SelfAttention)


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_multihead_attention_whose_values_have_no_position(theirs_and_ours, masked):
    theirs, ours = theirs_and_ours
    x, position = torch.randn(2, 2, 5, 16, dtype=torch.float64)
    mask = groups_apart(1, 2, 3) if masked else None
    expected, _ = theirs(x + position, x + position, x, attn_mask=None if mask is None else ~mask)
    torch.testing.assert_close(ours(x, position, mask), expected)


def test_padding_is_not_looked_at(theirs_and_ours):
    _, ours = theirs_and_ours
    x, position = torch.randn(2, 1, 5, 16, dtype=torch.float64)
    padding = torch.tensor([[False, False, False, True, True]])
    found = ours(x, position, may_look(padding))
    torch.testing.assert_close(found[:, :3], ours(x[:, :3], position[:, :3]))


def test_a_wholly_padded_image_gives_no_nan(theirs_and_ours):
    _, ours = theirs_and_ours
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    assert ours(x, x, may_look(torch.ones(1, 5, dtype=torch.bool))).isfinite().all()


def test_cross_attention_is_multihead_attention_with_padded_keys_left_out():
    theirs, ours = same(CrossAttention)
    query, (key, value) = torch.randn(2, 3, 16).double(), torch.randn(2, 2, 5, 16).double()
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    expected, _ = theirs(query, key, value, key_padding_mask=padding)
    torch.testing.assert_close(ours(query, key, value, may_look(padding)), expected)
    torch.testing.assert_close(ours(query[1:], key[1:, :2], value[1:, :2]), expected[1:])


@torch.no_grad()
def test_it_starts_as_multihead_attention_does():
    theirs, ours = nn.MultiheadAttention(96, 4), SelfAttention(96, 4)
    assert not ours.project_in.bias.any() and not ours.project_out.bias.any()
    kinds = (ours.project_in.weight, theirs.in_proj_weight), (ours.project_out.weight, theirs.out_proj.weight)
    for mine, other in kinds:
        assert mine.abs().max().item() == pytest.approx(other.abs().max().item(), rel=1e-2)
        assert mine.std().item() == pytest.approx(other.std().item(), rel=3e-2)


def test_heads_that_cannot_share_the_channels_are_refused():
    with pytest.raises(UsageError, match="10 channels can't be shared among 4 heads"):
        SelfAttention(10, 4)


@pytest.mark.parametrize("kind", [SelfAttention, CrossAttention])
def test_dropout_is_of_the_attention_weights_and_for_training_only(kind):
    attention = kind(16, 4, dropout=1.0)
    given = [torch.randn(1, 5, 16)] * (2 if kind is SelfAttention else 3)
    nn.init.ones_(attention.project_out.bias)
    assert (attention(*given) == 1).all()
    assert not (attention.eval()(*given) == 1).any()


def test_denoising_groups_see_themselves_and_the_matching_queries_which_see_each_other():
    mask = groups_apart(num_groups=2, group=2, num_matching=1)
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1],
    ]
