import pytest
import torch
from torch import nn

from detr.layers.attention import SelfAttention, groups_apart, may_look


@pytest.fixture
def theirs_and_ours():
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    ours = SelfAttention(16, 4).double()
    nn.init.normal_(theirs.in_proj_bias)
    ours.project_in.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
    ours.project_out.load_state_dict(theirs.out_proj.state_dict())
    return theirs, ours


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


def test_denoising_groups_see_themselves_and_the_matching_queries_which_see_each_other():
    mask = groups_apart(num_groups=2, group=2, num_matching=1)
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1],
    ]
