"""Boxes of any kind: formats go round, IoU and GIoU stay what they are by definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.boxes import area, cxcywh_to_xyxy, giou, iou, xyxy_to_cxcywh

coordinate = st.floats(-1e6, 1e6, width=32)
within = st.floats(0, 1, width=32)


def tensor_of(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype).view(-1, 4)


def corners(values):
    """Any eight numbers as two proper boxes, which may be empty."""
    first, second = tensor_of(values).chunk(2)
    return [
        torch.cat([torch.minimum(b[:, :2], b[:, 2:]), torch.maximum(b[:, :2], b[:, 2:])], -1) for b in (first, second)
    ]


any_two_boxes = st.lists(coordinate, min_size=8, max_size=8).map(corners)
two_raw_boxes = st.lists(coordinate, min_size=8, max_size=8).map(lambda values: tensor_of(values).chunk(2))


@settings(deadline=None)
@given(any_two_boxes)
def test_giou_lies_between_minus_1_and_1_and_never_above_the_iou(boxes):
    first, second = boxes
    overlap, _ = iou(first, second)
    value = giou(first, second)
    assert value.isfinite().all()
    assert -1 - 1e-9 <= value.item() <= overlap.item() + 1e-9 <= 1 + 2e-9


@settings(deadline=None)
@given(any_two_boxes)
def test_iou_and_giou_are_symmetric(boxes):
    first, second = boxes
    torch.testing.assert_close(giou(first, second), giou(second, first), rtol=0, atol=1e-12)
    torch.testing.assert_close(iou(first, second)[0], iou(second, first)[0], rtol=0, atol=1e-12)


@settings(deadline=None)
@given(two_raw_boxes)
def test_even_boxes_the_wrong_way_round_have_a_finite_giou_in_range(boxes):
    assert -1 - 1e-9 <= giou(*boxes).item() <= 1 + 1e-9


@settings(deadline=None)
@given(st.lists(within, min_size=8, max_size=8))
def test_gradients_of_giou_are_finite_in_float32(values):
    boxes = tensor_of(values[:4], torch.float32).requires_grad_()
    giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(tensor_of(values[4:], torch.float32))).sum().backward()
    assert boxes.grad.isfinite().all()


@settings(deadline=None)
@given(st.lists(within, min_size=4, max_size=4))
def test_corners_and_centres_go_round(values):
    boxes = tensor_of(values, torch.float32)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes, rtol=0, atol=1e-6)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(any_two_boxes)
def test_a_box_has_iou_1_with_itself_unless_it_is_empty(boxes):
    box, _ = boxes
    expected = float(area(box).item() > 0)
    assert iou(box, box)[0].item() == expected
    assert giou(box, box).item() == expected


def test_formats_by_hand():
    assert cxcywh_to_xyxy(torch.tensor([0.5, 0.5, 0.2, 0.4])).tolist() == pytest.approx([0.4, 0.3, 0.6, 0.7])
    assert xyxy_to_cxcywh(torch.tensor([0.4, 0.3, 0.6, 0.7])).tolist() == pytest.approx([0.5, 0.5, 0.2, 0.4])


@pytest.mark.parametrize(
    ("other", "overlap", "generalised"),
    [
        ([0.0, 0, 2, 2], 1, 1),
        ([1.0, 0, 3, 2], 1 / 3, 1 / 3),  # side by side: nothing is wasted
        ([2.0, 2, 4, 4], 0, -0.5),  # corners touch: half of the enclosing box is waste
        ([0.5, 0.5, 1.5, 1.5], 1 / 4, 1 / 4),  # inside
        ([1.0, 1, 1, 1], 0, 0),  # a point inside
    ],
)
def test_iou_and_giou_by_hand(other, overlap, generalised):
    box, other = torch.tensor([0.0, 0, 2, 2]), torch.tensor(other)
    assert iou(box, other)[0].item() == pytest.approx(overlap)
    assert giou(box, other).item() == pytest.approx(generalised)


def test_an_epsilon_is_added_to_each_area_that_is_divided_by():
    """Of union 6 and enclosing area 6, and of union 8 and enclosing area 16."""
    box, beside, corner = (torch.tensor(place) for place in ([0.0, 0, 2, 2], [1.0, 0, 3, 2], [2.0, 2, 4, 4]))
    overlap, union = iou(box, beside, epsilon=4)
    assert (overlap.item(), union.item()) == (pytest.approx(2 / 10), 6)
    assert giou(box, beside, epsilon=4).item() == pytest.approx(2 / 10)
    assert giou(box, corner, epsilon=4).item() == pytest.approx(-8 / 20)


def test_two_empty_boxes_have_no_overlap_and_waste_what_lies_between_them():
    here, there = torch.tensor([1.0, 1, 1, 1]), torch.tensor([2.0, 3, 2, 3])
    assert giou(here, here).item() == 0
    assert giou(here, there).item() == -1


def test_all_pairs_by_broadcasting():
    boxes, others = torch.rand(3, 4), torch.rand(5, 4)
    table = giou(boxes[:, None], others[None])
    assert table.shape == (3, 5)
    assert table[1, 4] == giou(boxes[1], others[4])


def test_no_boxes_have_no_ious():
    none = torch.zeros(0, 4)
    assert iou(none, none)[0].shape == giou(none, none).shape == area(none).shape == (0,)
    assert cxcywh_to_xyxy(none).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_half_precision_and_whole_pixels_are_computed_in_float32(dtype):
    """The area of the first box, 65,025, is next to float16's largest number; that of the union is beyond."""
    box, other = torch.tensor([0, 0, 255, 255], dtype=dtype), torch.tensor([0, 0, 128, 255], dtype=dtype)
    value = giou(box, other)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(128 / 255, rel=0.01)
