import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.layers.position import anchors, inverse_sigmoid, sine_table


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-4, 1 - 1e-4))
def test_inverse_sigmoid_undoes_sigmoid(x):
    assert inverse_sigmoid(torch.tensor(x, dtype=torch.float64)).sigmoid().item() == pytest.approx(x)


def test_inverse_sigmoid_is_finite_at_the_ends_and_beyond():
    ends = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    torch.testing.assert_close(ends[:2], torch.full((2,), math.log(1e-5)))
    torch.testing.assert_close(ends[2:], torch.full((2,), -math.log(1e-5)))


def test_anchors_lie_in_the_middle_of_their_cells_and_double_with_the_level():
    logits, valid = anchors(((2, 4), (1, 2)), like=torch.empty(0))
    assert valid is None
    boxes = logits.sigmoid()
    torch.testing.assert_close(boxes[0], torch.tensor([0.125, 0.25, 0.05, 0.05]))
    torch.testing.assert_close(boxes[5], torch.tensor([0.375, 0.75, 0.05, 0.05]))  # second row, second column
    torch.testing.assert_close(boxes[9], torch.tensor([0.75, 0.5, 0.1, 0.1]))


def test_anchors_too_near_the_border_are_not_valid():
    logits, valid = anchors(((80, 80), (40, 40), (20, 20)), like=torch.empty(0))
    assert (~valid).sum() == 4 * 79  # the outermost positions of the finest level, and no others
    assert logits[~valid[:, 0]].isposinf().all() and logits[valid[:, 0]].isfinite().all()


def test_the_sine_table_runs_column_by_column_as_officially():
    table = sine_table(2, 3, 8, like=torch.empty(0))
    assert table.shape == (6, 8)
    sines = [0, 2]  # columns: sin(x), sin(x / 100), cos(x), cos(x / 100), then y
    x, y = table[:, sines[0]].asin(), table[:, 4 + sines[0]].asin()
    torch.testing.assert_close(x[:4], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(y[:4], torch.tensor([0.0, 1.0, 0.0, 1.0]))


def test_tables_made_during_inference_serve_training_too():
    with torch.inference_mode():
        anchors(((3, 5),), like=torch.empty(0))
        sine_table(7, 5, 8, like=torch.empty(0))
    logits, _ = anchors(((3, 5),), like=torch.empty(0))
    weight = torch.ones(1, requires_grad=True)
    (logits * weight * sine_table(7, 5, 8, like=torch.empty(0)).sum()).sum().backward()
    assert weight.grad is not None
