"""A case by hand for each loss, and that no loss of proper values is anything but a finite number."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.criterion import losses

LOGIT = math.log(3)  # sigmoid 0.75
YES = torch.tensor([True])
NO = torch.tensor([False])


def test_varifocal_of_a_matched_class_is_cross_entropy_with_the_iou_weighted_by_it():
    value = losses.varifocal(torch.tensor([LOGIT]), YES, torch.tensor([0.5]))
    assert value.item() == pytest.approx(-0.5 * (0.5 * math.log(0.75) + 0.5 * math.log(0.25)))


def test_varifocal_of_another_class_is_weighted_by_its_score_squared():
    value = losses.varifocal(torch.tensor([LOGIT]), NO, torch.tensor([0.5]))
    assert value.item() == pytest.approx(-0.75 * 0.75**2 * math.log(0.25))


def test_varifocal_asks_nothing_of_a_match_without_overlap():
    assert losses.varifocal(torch.tensor([LOGIT]), YES, torch.tensor([0.0])).item() == 0


def test_varifocal_has_no_gradient_through_its_weights():
    logits = torch.tensor([LOGIT], requires_grad=True)
    losses.varifocal(logits, NO, torch.zeros(1)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(0.75 * 0.75**2 * 0.75)  # weight times (score - 0)


def test_focal_weighs_a_class_by_how_much_it_misses():
    logits = torch.tensor([LOGIT])
    assert losses.focal(logits, YES).item() == pytest.approx(-0.25 * 0.25**2 * math.log(0.75))
    assert losses.focal(logits, NO).item() == pytest.approx(-0.75 * 0.75**2 * math.log(0.25))


def test_focal_with_gamma_0_and_alpha_a_half_is_half_the_cross_entropy():
    logits = torch.randn(7, 3, dtype=torch.float64)
    positive = torch.rand(7, 3) > 0.5
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, positive.double(), reduction="none") / 2
    torch.testing.assert_close(losses.focal(logits, positive, alpha=0.5, gamma=0), expected)


def test_focal_agrees_with_its_gradient():
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    positive = torch.rand(4, 3) > 0.5
    assert torch.autograd.gradcheck(lambda values: losses.focal(values, positive), (logits,))


def test_mal_of_a_matched_class_is_cross_entropy_with_the_iou_to_the_power_of_gamma():
    value = losses.matchability_aware(torch.tensor([LOGIT]), YES, torch.tensor([0.25]))
    wanted = 0.25**1.5
    assert value.item() == pytest.approx(-(wanted * math.log(0.75) + (1 - wanted) * math.log(0.25)))


def test_mal_of_another_class_is_weighted_by_its_score_to_the_power_of_gamma():
    value = losses.matchability_aware(torch.tensor([LOGIT]), NO, torch.tensor([0.25]), gamma=2)
    assert value.item() == pytest.approx(-(0.75**2) * math.log(0.25))


def test_mal_learns_from_a_match_without_overlap_what_varifocal_does_not():
    logits = torch.tensor([LOGIT], requires_grad=True)
    losses.matchability_aware(logits, YES, torch.zeros(1)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(0.75)  # weight 1 times (score - 0)


def test_cross_entropy_of_no_object_weighs_a_tenth():
    logits = torch.tensor([[[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(2)]]], dtype=torch.float64)
    value = losses.cross_entropy(logits, torch.tensor([[0, 2]]), no_object_weight=0.1)
    assert value.tolist() == [[pytest.approx(math.log(2)), pytest.approx(0.1 * math.log(2))]]


def test_an_epsilon_of_giou_is_added_to_both_areas():
    same = torch.tensor([0.5, 0.5, 0.2, 0.2], dtype=torch.float64)
    value = losses.giou(same, same, epsilon=0.01)
    assert value.item() == pytest.approx(1 - 0.04 / 0.05)


def test_l1_sums_the_four_differences():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]])
    value = losses.l1(boxes, torch.tensor([[0.4, 0.7, 0.2, 0.5], [0.5, 0.5, 0.2, 0.1]]))
    assert value.tolist() == pytest.approx([0.1 + 0.2 + 0.0 + 0.3, 0.1])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0.5, 0.5, 0.2, 0.2], 0.0),  # the very same
        ([0.6, 0.5, 0.2, 0.2], 1 - 1 / 3),  # half of each overlaps, and they fill the enclosing box
        ([0.7, 0.7, 0.2, 0.2], 1 + 0.5),  # corners touch: two of the four quarters are waste
    ],
)
def test_giou_loss_by_hand(box, expected):
    value = losses.giou(torch.tensor(box, dtype=torch.float64), torch.tensor([0.5, 0.5, 0.2, 0.2], dtype=torch.float64))
    assert value.item() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(
    logit=st.floats(-1e4, 1e4, width=32),
    quality=st.floats(0, 1, width=32),
    positive=st.booleans(),
)
def test_class_losses_and_gradients_are_finite_for_any_logit(logit, quality, positive):
    logits = torch.tensor([logit], requires_grad=True)
    marked = torch.tensor([positive])
    qualities = torch.tensor([quality])
    total = losses.varifocal(logits, marked, qualities) + losses.matchability_aware(logits, marked, qualities)
    total = total + losses.focal(logits, marked)
    total.sum().backward()
    assert logits.grad is not None
    assert total.isfinite().all() and logits.grad.isfinite().all()
    assert total.item() >= 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8))
def test_box_losses_and_gradients_are_finite_for_any_boxes_even_empty_ones(values):
    boxes = torch.tensor(values[:4], requires_grad=True)
    others = torch.tensor(values[4:])
    total = losses.giou(boxes, others) + losses.l1(boxes, others)
    total.backward()
    assert boxes.grad is not None
    assert total.isfinite() and boxes.grad.isfinite().all()
    assert -1e-6 <= losses.giou(boxes, others).item() <= 2 + 1e-6
