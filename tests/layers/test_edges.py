import pytest
import torch

from detr.layers.edges import bin_positions, boxes_from_edges, edges_from_boxes, expected_moves, moves_from_boxes

START = torch.tensor([[0.5, 0.4, 0.2, 0.4], [0.1, 0.9, 0.05, 0.1]], dtype=torch.float64)
BOXES = torch.tensor([[0.52, 0.38, 0.25, 0.3], [0.12, 0.88, 0.04, 0.12]], dtype=torch.float64)
SETTINGS = pytest.mark.parametrize(("bins", "scale", "up"), [(33, 4.0, 0.5), (33, 8.0, 0.5), (5, 1.0, 2.0)])


@SETTINGS
def test_bins_ascend_are_odd_about_zero_and_end_at_twice_the_reach(bins, scale, up):
    positions = bin_positions(bins, scale=scale, up=up)
    assert len(positions) == bins and (positions.diff() > 0).all()
    torch.testing.assert_close(positions, -positions.flip(0))
    assert positions[bins // 2] == 0
    torch.testing.assert_close(positions[-1].item(), 2 * up * scale)
    torch.testing.assert_close(positions[-2].item(), (1 + up * scale) ** ((bins // 2 - 1) * 2 / (bins - 3)) - 1)


def test_bins_lie_closer_in_the_middle():
    steps = bin_positions().diff()[16:]
    assert (steps.diff() > 0).all()


def test_an_edge_that_does_not_move_leaves_the_box():
    torch.testing.assert_close(boxes_from_edges(torch.zeros(2, 4, dtype=torch.float64), START), START)


def test_a_move_of_the_scale_is_one_side_outwards():
    moved = boxes_from_edges(torch.tensor([4.0, 0.0, 0.0, 2.0]), torch.tensor([0.5, 0.5, 0.2, 0.4]), scale=4.0)
    torch.testing.assert_close(moved, torch.tensor([0.4, 0.6, 0.4, 0.6]))


@SETTINGS
def test_moves_lead_to_the_box_they_were_made_from(bins, scale, up):
    moves = moves_from_boxes(BOXES, START, scale=scale)
    torch.testing.assert_close(boxes_from_edges(moves, START, scale=scale), BOXES)


@SETTINGS
def test_target_distributions_have_the_box_as_their_mean(bins, scale, up):
    positions = bin_positions(bins, scale=scale, up=up)
    left, right_weight = edges_from_boxes(BOXES, START, positions, scale=scale)
    assert left.dtype == torch.int64 and ((right_weight >= 0) & (right_weight <= 1)).all()
    weights = torch.zeros(2, 4, bins, dtype=torch.float64)
    weights.scatter_(2, left[..., None], (1 - right_weight)[..., None])
    weights.scatter_(2, left[..., None] + 1, right_weight[..., None])
    mean = expected_moves(weights.log(), positions)
    torch.testing.assert_close(boxes_from_edges(mean, START, scale=scale), BOXES)


def test_a_box_out_of_reach_is_the_outermost_bin():
    far = torch.tensor([[0.5, 0.5, 2.0, 2.0]], dtype=torch.float64)
    tiny = torch.tensor([[0.5, 0.5, 0.01, 0.0]], dtype=torch.float64)
    positions = bin_positions(scale=4.0, up=0.1)
    left, right_weight = edges_from_boxes(far, tiny, positions)
    assert (left == 31).all() and (right_weight == 1).all()
    left, right_weight = edges_from_boxes(tiny, far, positions)
    assert (left == 0).all() and (right_weight == 0).all()


def test_no_boxes_give_no_edges():
    left, right_weight = edges_from_boxes(torch.zeros(0, 4), torch.zeros(0, 4), bin_positions())
    assert left.shape == right_weight.shape == (0, 4)


def test_an_even_number_of_bins_has_no_middle():
    with pytest.raises(AssertionError):
        bin_positions(32)
