import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.layers.position import anchors, inverse_sigmoid, shrunk, sine_embedding, sine_of_boxes, sine_table


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


def phase(waves):
    """The angle of channels sin, cos; [0, 2 pi)."""
    return torch.atan2(waves[..., 0], waves[..., 1]) % (2 * math.pi)


def test_the_sine_embedding_says_y_then_x_as_shares_of_the_image():
    table = sine_embedding(torch.empty(1, 8, 3, 4), None)
    assert table.shape == (1, 12, 8)
    shares = torch.tensor([1, 2, 3]) / 3, torch.tensor([1, 2, 3, 4]) / 4
    y, x = (each.flatten() for each in torch.meshgrid(*shares, indexing="ij"))
    # 10000^(2 i / 4) for i = 0, 1: periods 1 and 100, sine and cosine side by side
    torch.testing.assert_close(table[0, :, 0], (2 * math.pi * y).sin(), rtol=0, atol=2e-5)
    torch.testing.assert_close(table[0, :, 1], (2 * math.pi * y).cos(), rtol=0, atol=2e-5)
    torch.testing.assert_close(phase(table[0, :, 2:4]), 2 * math.pi * y / 100, rtol=0, atol=2e-6)
    torch.testing.assert_close(phase(table[0, :, 6:8]), 2 * math.pi * x / 100, rtol=0, atol=2e-6)


def test_the_sine_embedding_of_a_padded_image_is_that_of_the_image_alone():
    padding = torch.ones(2, 5, 7, dtype=torch.bool)
    padding[0, :3, :4] = False
    padding[1, :5, :2] = False
    table = sine_embedding(torch.empty(2, 16, 5, 7), padding, temperature=20, offset=-0.5).unflatten(1, (5, 7))
    for index, (h, w) in enumerate([(3, 4), (5, 2)]):
        alone = sine_embedding(torch.empty(1, 16, h, w), None, temperature=20, offset=-0.5).unflatten(1, (h, w))
        torch.testing.assert_close(table[index, :h, :w], alone[0])


def test_rows_and_columns_that_are_all_padding_have_finite_embeddings():
    padding = torch.zeros(1, 3, 4, dtype=torch.bool)
    padding[:, 2], padding[:, :, 3] = True, True
    for offset in (0.0, -0.5):
        assert sine_embedding(torch.zeros(1, 8, 3, 4), padding, offset=offset).isfinite().all()


def test_an_offset_of_half_a_cell_means_the_middle_of_the_cell():
    table = sine_embedding(torch.empty(1, 8, 1, 4), None, offset=-0.5)
    x = (torch.arange(4) + 0.5) / 4
    torch.testing.assert_close(phase(table[0, :, 6:8]), 2 * math.pi * x / 100, rtol=0, atol=2e-6)


def test_the_sine_embedding_is_float32_in_every_type():
    half, double = (sine_embedding(torch.empty(1, 8, 2, 3, dtype=each), None) for each in (torch.half, torch.double))
    single = sine_embedding(torch.empty(1, 8, 2, 3), None)
    assert (half.dtype, double.dtype) == (torch.half, torch.double)
    assert torch.equal(double, single.double()) and torch.equal(half, single.half())


def test_padding_shrinks_to_the_size_of_a_map():
    padding = torch.zeros(1, 8, 8, dtype=torch.bool)
    padding[:, 5:] = True
    assert shrunk(padding, torch.empty(1, 3, 4, 2))[0].int().tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]
    assert shrunk(None, torch.empty(1, 3, 4, 2)) is None


def test_anchors_of_a_padded_image_are_those_of_the_image_alone():
    frame, inner = (8, 12), (6, 7)
    padding = torch.ones(1, *frame, dtype=torch.bool)
    padding[:, : inner[0], : inner[1]] = False
    alone, fits = anchors((inner,), like=torch.empty(0))
    assert fits is None
    logits, valid = anchors((frame,), like=torch.empty(0), padding=padding.flatten(1))
    there = logits.view(*frame, 4)[: inner[0], : inner[1]]
    torch.testing.assert_close(there.reshape(-1, 4), alone)
    assert torch.equal(valid.view(1, *frame), ~padding)
    assert logits[~valid[..., 0]].isinf().all()


def test_a_box_becomes_the_waves_of_its_numbers():
    waves = sine_of_boxes(torch.tensor([[0.25, 0.5]]), 4)
    first, second = 0.25 * 2 * math.pi, 0.5 * 2 * math.pi
    expected = [f(x / period) for x in (first, second) for period in (1, 100) for f in (math.sin, math.cos)]
    torch.testing.assert_close(waves, torch.tensor([expected]))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=6))
def test_nothing_is_said_of_valid_anchors_exactly_where_all_are(sizes):
    shapes = tuple(sizes)
    _, valid = anchors(shapes, like=torch.empty(0))
    whole, _ = anchors(shapes, like=torch.empty(0), padding=torch.zeros(1, sum(h * w for h, w in shapes)).bool())
    assert (valid is None) == whole.isfinite().all().item()
