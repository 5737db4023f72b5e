"""Deformable attention on maps small enough to compute by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detr.ops import deformable_attention, kernels

GOLDEN = Path(__file__).parent.parent / "golden"
SHAPES = ((2, 3), (1, 1))  # positions 0..5 row by row, then position 6


@pytest.fixture(params=["torch", "grid_sample"], autouse=True)
def form(request):
    """Every test of this file, by each form in turn."""
    with kernels(request.param):
        yield request.param


def attend(locations, weights, points, value=None, method="bilinear"):
    """One image, one query, one head; the value of position p is p + 1 unless given."""
    value = torch.arange(1.0, 8.0).view(1, 7, 1, 1) if value is None else value
    locations = torch.tensor(locations).view(1, 1, 1, -1, 2)
    weights = torch.tensor(weights).view(1, 1, 1, -1)
    return sampled(value, SHAPES, locations, weights, points, method=method).flatten()


def sampled(value, shapes, locations, weights, points, method="bilinear"):
    """As before softmax and references came in: locations [B, Q, M, P, 2] in [0, 1], weights [B, Q, M, P] of sum 1."""
    references = locations.new_zeros(*locations.shape[:2], 2)
    sizes = [(width, height) for (height, width), count in zip(shapes, points, strict=True) for _ in range(count)]
    offsets = locations * locations.new_tensor(sizes)
    return deformable_attention(value, shapes, references, offsets, weights.log(), points, method=method)


def test_the_middle_of_a_cell_reads_that_cell():
    assert attend([[2.5 / 3, 1.5 / 2], [0.5, 0.5]], [1.0, 0.0], (1, 1)).item() == pytest.approx(6)


@pytest.mark.parametrize(("location", "value"), [((0, 0), 1), ((0.4, 0), 2), ((0.55, 0.2), 3), ((0.1, 0.3), 4)])
def test_discrete_reads_the_position_at_location_times_size(location, value):
    assert attend([location, [0.5, 0.5]], [1.0, 0.0], (1, 1), method="discrete").item() == value


def test_between_two_cells_reads_half_of_each():
    assert attend([[1 / 3, 0.25], [0.5, 0.5]], [1.0, 0.0], (1, 1)).item() == pytest.approx(1.5)


def test_bilinear_reads_zeros_outside():
    assert attend([[2.0, 0.5], [0.5, 0.5]], [1.0, 0.0], (1, 1)).item() == 0


def test_discrete_reads_the_border_outside():
    assert attend([[5.0, -3.0], [0.5, 0.5]], [1.0, 0.0], (1, 1), method="discrete").item() == 3


def test_discrete_reaches_every_column_of_a_wide_map():
    assert attend([[1.0, 0.0], [0.5, 0.5]], [1.0, 0.0], (1, 1), method="discrete").item() == 3


def test_levels_may_have_different_numbers_of_points():
    middle_of_first, middle_of_last = [0.5 / 3, 0.25], [2.5 / 3, 0.75]
    locations = [middle_of_first, middle_of_last, [0.5, 0.5]]
    assert attend(locations, [0.5, 0.25, 0.25], (2, 1)).item() == pytest.approx(0.5 * 1 + 0.25 * 6 + 0.25 * 7)


def test_each_head_reads_its_own_channels_at_its_own_place():
    value = torch.zeros(1, 7, 2, 2)
    value[0, 0, 0], value[0, 5, 1] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    locations = torch.tensor([[[0.5 / 3, 0.25], [0.5, 0.5]], [[2.5 / 3, 0.75], [0.5, 0.5]]]).view(1, 1, 2, 2, 2)
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    found = sampled(value, SHAPES, locations, weights, (1, 1))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))


@pytest.mark.parametrize("method", ["bilinear", "discrete"])
@pytest.mark.parametrize(("batch", "queries"), [(0, 3), (2, 0), (0, 0)])
def test_of_no_images_or_no_queries_there_is_nothing_and_no_gradient(batch, queries, method):
    value = torch.randn(batch, 7, 2, 3, requires_grad=True)
    offsets = torch.randn(batch, queries, 2, 3, 2, requires_grad=True)
    logits = torch.randn(batch, queries, 2, 3, requires_grad=True)
    references = torch.rand(1, queries, 2)
    found = deformable_attention(value, SHAPES, references, offsets, logits, (2, 1), method=method)
    assert found.shape == (batch, queries, 2 * 3)
    found.sum().backward()
    assert value.grad.shape == value.shape
    assert not value.grad.any()


def test_gradients_are_those_of_finite_differences():
    value = torch.randn(2, 7, 2, 3, dtype=torch.float64, requires_grad=True)
    references = torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(2, 4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda *given: deformable_attention(given[0], SHAPES, *given[1:], (2, 1)), (value, references, offsets, logits)
    )


def test_outputs_and_gradients_are_those_of_the_official_operator():
    recorded = dict(np.load(GOLDEN / "deformable_attention.npz"))
    names = ("value", "sampling_locations", "attention_weights")
    given = [torch.from_numpy(recorded[name]).requires_grad_() for name in names]
    value, locations, weights = given
    shapes = tuple((int(h), int(w)) for h, w in recorded["spatial_shapes"])
    found = sampled(value, shapes, locations.flatten(3, 4), weights.flatten(3), (2, 2, 2))
    torch.testing.assert_close(found, torch.from_numpy(recorded["output"]), rtol=0, atol=1e-12)
    found.backward(torch.from_numpy(recorded["grad_output"]))
    for name, tensor in zip(names, given, strict=True):
        expected = torch.from_numpy(recorded[f"grad_{name}"])
        if name == "attention_weights":  # the softmax takes out what is common to all weights of a query and head
            expected = expected - (expected * weights.detach()).sum((-2, -1), keepdim=True)
        torch.testing.assert_close(tensor.grad, expected, rtol=0, atol=1e-12)


def test_a_query_among_many_gets_what_it_gets_among_few():
    value = torch.randn(2, 7, 2, 3, dtype=torch.float64)
    references = torch.rand(2, 2500, 2, dtype=torch.float64)
    offsets, logits = torch.randn(2, 2500, 2, 3, 2).double(), torch.randn(2, 2500, 2, 3).double()
    many = deformable_attention(value, SHAPES, references, offsets, logits, (2, 1))
    few = deformable_attention(value, SHAPES, references[:, :10], offsets[:, :10], logits[:, :10], (2, 1))
    torch.testing.assert_close(many[:, :10], few)
