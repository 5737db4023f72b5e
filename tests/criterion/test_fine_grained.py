"""Losses of edges that are distributions: by hand, and what they lead to."""

import math

import pytest
import torch

from detr.boxes import cxcywh_to_xyxy, iou
from detr.criterion.fine_grained import decoupled_mean, distillation, fgl
from detr.layers.edges import bin_positions, boxes_from_edges, edges_from_boxes, expected_moves


def test_fgl_of_an_even_distribution_is_the_logarithm_of_the_bins():
    value = fgl(torch.zeros(2, 5), torch.tensor([0, 3]), torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(value, torch.full((2,), math.log(5)))


def test_fgl_mixes_the_two_bins_by_their_shares():
    logits = torch.tensor([[math.log(2), 0.0, math.log(5)]], dtype=torch.float64)  # probabilities 2/8, 1/8, 5/8
    value = fgl(logits, torch.tensor([0]), torch.tensor([0.25], dtype=torch.float64))
    assert value.item() == pytest.approx(-(0.75 * math.log(2 / 8) + 0.25 * math.log(1 / 8)))


def test_fgl_has_no_gradient_where_the_distribution_is_the_wanted_one():
    share = torch.tensor([0.25], dtype=torch.float64)
    logits = torch.tensor([[-40.0, math.log(0.75), math.log(0.25), -40.0]], dtype=torch.float64, requires_grad=True)
    fgl(logits, torch.tensor([1]), share).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12


def test_fgl_made_small_leads_to_the_wanted_boxes():
    torch.manual_seed(0)
    start, wanted = (torch.rand(6, 4, dtype=torch.float64) * 0.3 + 0.3 for _ in range(2))
    positions = bin_positions().double()
    left, share = edges_from_boxes(wanted, start, positions)
    logits = torch.zeros(6, 4, 33, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        fgl(logits, left, share).sum().backward()
        optimizer.step()
    boxes = boxes_from_edges(expected_moves(logits.detach(), positions), start)
    assert iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))[0].min() > 0.97


def test_distillation_by_hand():
    student, teacher = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[math.log(3) * 5, 0.0]]).double()
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert distillation(student, teacher).item() == pytest.approx(25 * divergence)
    assert distillation(student, teacher / 5, temperature=1).item() == pytest.approx(divergence)


def test_distillation_of_a_distribution_from_itself_is_zero_and_asks_nothing():
    student = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    value = distillation(student, student)
    value.sum().backward()
    assert student.grad is not None
    assert value.abs().max() < 1e-12 and student.grad.abs().max() < 1e-12


def test_no_gradient_reaches_the_teacher():
    student, teacher = (torch.randn(2, 5, requires_grad=True) for _ in range(2))
    distillation(student, teacher).sum().backward()
    assert teacher.grad is None and student.grad is not None


def test_the_decoupled_mean_mixes_by_the_roots_of_the_counts():
    values = torch.tensor([[4.0, 1.0, 3.0, 2.0, 6.0]], dtype=torch.float64)
    matched = torch.tensor([[True, False, False, False, False]])
    value = decoupled_mean(values, matched, num_matched=1.0, balance=(1.0, 4.0))
    assert value.item() == pytest.approx((1 * 4 + 2 * 3) / 3)
    other = decoupled_mean(values, matched, num_matched=1.0, balance=(9.0, 1.0))
    assert other.item() == pytest.approx((3 * 4 + 1 * 3) / 4)


@pytest.mark.parametrize("all_matched", [False, True])
def test_a_kind_without_members_adds_nothing_to_the_decoupled_mean(all_matched):
    values = torch.tensor([[4.0, 2.0]])
    matched = torch.full((1, 2), all_matched)
    count = 2.0 * all_matched
    assert decoupled_mean(values, matched, num_matched=count, balance=(count, 2.0 - count)).item() == 3
