import pytest
import torch

from detr.layers.deformable import DeformableAttention, DeformableDecoderLayer, DeformableEncoderLayer, Gate

SHAPES = ((4, 6), (2, 3))
BOXES = torch.tensor([[[0.5, 0.5, 0.4, 0.2]]])


def test_points_start_in_the_directions_of_the_heads_one_step_further_each():
    attention = DeformableAttention(16, 4, (2, 1))
    offsets = attention.offsets.bias.view(4, 3, 2)
    right, down, left, up = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    for head, direction in enumerate((right, down, left, up)):
        expected = torch.stack([direction, 2 * direction, direction])  # two points on one level, one on the other
        torch.testing.assert_close(offsets[head], expected, rtol=0, atol=1e-6)


def test_diagonal_directions_are_whole_steps_too():
    """Of 8 heads the second looks down to the right: by (1, 1), not by a step of length 1."""
    offsets = DeformableAttention(16, 8, (2,)).offsets.bias.view(8, 2, 2)
    torch.testing.assert_close(offsets[1], torch.tensor([[1.0, 1], [2, 2]]))
    torch.testing.assert_close(offsets[4], torch.tensor([[-1.0, 0], [-2, 0]]), rtol=0, atol=1e-6)


def test_discrete_sampling_does_not_learn_its_offsets():
    attention = DeformableAttention(16, 4, (2, 1), method="discrete")
    fixed = [name for name, parameter in attention.named_parameters() if not parameter.requires_grad]
    assert fixed == ["offsets.weight", "offsets.bias"]


@pytest.mark.parametrize("method", ["bilinear", "discrete"])
def test_padding_is_not_read(method):
    attention = DeformableAttention(16, 4, (2, 2), method=method)
    memory = torch.randn(1, 30, 16)
    padding = torch.zeros(1, 30, dtype=torch.bool)
    padding[:, ::2] = True
    query = torch.randn(1, 1, 16)
    before = attention(query, BOXES, memory, SHAPES, padding)
    memory[:, ::2] = 1e6
    torch.testing.assert_close(attention(query, BOXES, memory, SHAPES, padding), before)


def test_a_constant_memory_is_read_as_that_constant_well_inside():
    attention = DeformableAttention(16, 4, (1, 1)).requires_grad_(False)
    memory = torch.randn(1, 1, 16).expand(1, 30, 16)
    expected = attention.project_out(attention.project_value(memory[:, :1]))
    small = torch.tensor([[[0.5, 0.5, 0.1, 0.1]]])
    torch.testing.assert_close(attention(torch.randn(1, 1, 16), small, memory, SHAPES, None), expected)


def test_the_clamp_keeps_half_precision_finite():
    layer = DeformableDecoderLayer(16, 4, 8, (1, 1), clamp=10.0).requires_grad_(False)
    layer.feed_forward.linear2.bias.fill_(1e30)
    x = torch.randn(1, 1, 16)
    found = layer(x, x, BOXES, torch.randn(1, 30, 16), SHAPES)
    torch.testing.assert_close(found, torch.zeros_like(found))  # all channels alike after the clamp


def test_without_projections_heads_read_the_memory_itself():
    """At the middle of the second position, and of the fourth."""
    attention = DeformableAttention(8, 2, (1,), projected=False)
    torch.nn.init.zeros_(attention.offsets.bias)
    memory = torch.rand(1, 6, 8)
    boxes = torch.tensor([[[0.5, 0.25, 1.0, 1.0], [1 / 6, 0.75, 0.2, 0.2]]])
    attended = attention(torch.rand(1, 2, 8), boxes, memory, ((2, 3),), None)
    torch.testing.assert_close(attended, memory[:, [1, 3]])
    assert {name for name, _ in attention.named_parameters()} == {
        f"{part}.{kind}" for part in ("offsets", "weights") for kind in ("weight", "bias")
    }


def test_a_gate_starts_as_the_norm_of_half_the_sum_and_learns_shares():
    gate = Gate(4)
    x, other = torch.rand(2, 3, 4), torch.rand(2, 3, 4)
    torch.testing.assert_close(gate(x, other), torch.nn.functional.layer_norm((x + other) / 2, (4,)))
    with torch.no_grad():
        gate.gate.bias.copy_(torch.tensor([100.0] * 4 + [-100.0] * 4))
    torch.testing.assert_close(gate(x, other), torch.nn.functional.layer_norm(x, (4,)))


def test_a_gated_layer_has_other_parts_and_the_same_shapes():
    layer = DeformableDecoderLayer(8, 2, 16, (1, 2), projected=False, gated=True)
    names = {name.split(".")[0] for name, _ in layer.named_parameters()}
    assert names == {"self_attention", "norm1", "cross_attention", "gate", "feed_forward", "norm3"}
    x = layer(torch.rand(1, 3, 8), torch.rand(1, 3, 8), torch.rand(1, 3, 4), torch.rand(1, 5, 8), ((2, 2), (1, 1)))
    assert x.shape == (1, 3, 8)


def test_the_first_half_of_a_gate_lets_the_queries_through_and_the_second_the_image():
    layer = DeformableDecoderLayer(8, 2, 16, (1,), gated=True).requires_grad_(False)
    x, boxes, memories = torch.randn(1, 3, 8), torch.full((1, 3, 4), 0.5), torch.randn(2, 4, 8)
    for bias, sees_the_image in ((100.0, False), (-100.0, True)):
        layer.gate.gate.bias.copy_(torch.tensor([bias] * 8 + [-bias] * 8))
        one, other = (layer(x, x, boxes, memory[None], ((2, 2),)) for memory in memories)
        assert torch.allclose(one, other) != sees_the_image


def test_boxes_of_each_level_may_differ():
    attention = DeformableAttention(16, 4, (2, 1)).requires_grad_(False)
    query, memory = torch.randn(1, 1, 16), torch.randn(1, 30, 16)
    alike = attention(query, BOXES[:, :, None].expand(-1, -1, 2, -1), memory, SHAPES, None)
    torch.testing.assert_close(alike, attention(query, BOXES, memory, SHAPES, None))
    memory[:, 24:] = 0  # the coarse level is not read, so only the first of these boxes counts
    attention.project_value.bias.zero_()
    other = torch.stack([BOXES, BOXES * 0.5], 2)
    torch.testing.assert_close(
        attention(query, other, memory, SHAPES, None), attention(query, BOXES, memory, SHAPES, None)
    )


def test_offsets_from_points_are_counted_in_positions():
    attention = DeformableAttention(16, 4, (1, 1)).requires_grad_(False)
    attention.offsets.bias.zero_()
    attention.offsets.bias.view(4, 2, 2)[..., 0] = 1.0  # one position to the right on both levels
    value = torch.zeros(1, 30, 16)
    value[:, 13] = 1.0  # x 1, y 2 of the fine level
    value[:, 25] = 3.0  # x 1, y 0 of the coarse level
    torch.nn.init.eye_(attention.project_value.weight)
    torch.nn.init.eye_(attention.project_out.weight)
    fine = torch.tensor([[[0.5 / 6, 2.5 / 4]]])
    coarse = torch.tensor([[[0.5 / 3, 0.5 / 2]]])
    points = torch.stack([fine, coarse], 2)
    found = attention(torch.zeros(1, 1, 16), points, value, SHAPES, None)
    torch.testing.assert_close(found, torch.full((1, 1, 16), 2.0))  # half the weight each


def test_dropout_is_of_the_training_only():
    layer = DeformableEncoderLayer(16, 4, 8, (1, 1), dropout=0.5)
    x, places = torch.randn(1, 30, 16), torch.rand(1, 30, 2)
    assert not torch.equal(layer(x, x, places, SHAPES), layer(x, x, places, SHAPES))
    layer.eval()
    torch.testing.assert_close(layer(x, x, places, SHAPES), layer(x, x, places, SHAPES), rtol=0, atol=0)


def test_an_encoder_layer_adds_both_branches_to_what_came_in_and_norms_after_each():
    layer = DeformableEncoderLayer(16, 4, 8, (1, 1)).requires_grad_(False)
    seen, said = torch.randn(16), torch.randn(16)  # whatever the tokens are
    for linear, answer in ((layer.attention.project_out, seen), (layer.feed_forward.linear2, said)):
        linear.weight.zero_()
        linear.bias.copy_(answer)
    x = torch.randn(1, 30, 16)
    normed = torch.nn.functional.layer_norm(x + seen, (16,))
    expected = torch.nn.functional.layer_norm(normed + said, (16,))
    torch.testing.assert_close(layer(x, x, torch.rand(1, 30, 2), SHAPES), expected)
