"""The form in plain PyTorch against the one by grid_sample, and what it promises besides."""

import shutil
import sys
import warnings
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given as forall
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
from samples import NAMES, given, padding_of

from detr.ops import deformable_attention
from detr.ops.bilinear_sums import bilinear_sums
from detr.ops.deformable_attention_grid_sample import deformable_attention as by_grid_sample
from detr.ops.deformable_attention_torch import deformable_attention as by_torch
from detr.ops.locations import frames_of

SHAPES, POINTS = ((5, 7), (3, 4), (1, 2)), (3, 1, 2)
REFERENCES = ("points", "boxes", "points of levels", "boxes of levels")
KINDS = [(references, method) for references in REFERENCES for method in ("bilinear", "discrete")]


def outputs_and_gradients(form, tensors, shapes=SHAPES, points=POINTS, **options):
    """{"output" or name: tensor}, the gradients those of a weighted sum of all numbers"""
    output = form(tensors["value"], shapes, *(tensors[name] for name in NAMES[1:]), points, **options)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((output * weights).sum(), [tensors[name] for name in NAMES], allow_unused=True)
    return {"output": output.detach(), **dict(zip(NAMES, gradients, strict=True))}


def assert_alike(found, expected, **tolerance):
    for name, tensor in expected.items():
        here = found[name]
        if here is None or tensor is None:  # discrete sampling has no gradient of where it samples
            assert not any(each.any() for each in (here, tensor) if each is not None), name
        else:
            torch.testing.assert_close(here, tensor, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("references", "method"), KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_the_forms_agree_to_the_last_digits(references, method, padded):
    tensors = given(SHAPES, POINTS, references=references)
    options = {"method": method, "padding": padding_of(tensors["value"]) if padded else None}
    found, expected = (outputs_and_gradients(form, tensors, **options) for form in (by_torch, by_grid_sample))
    assert_alike(found, expected, rtol=1e-12, atol=1e-12)


sizes = st.integers(1, 6)
levels = st.lists(st.tuples(st.tuples(sizes, sizes), st.integers(1, 4)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None, derandomize=True)
@forall(levels, st.sampled_from(KINDS), st.integers(1, 3), st.integers(0, 4), st.integers(1, 3), st.integers(1, 9))
def test_the_forms_agree_whatever_the_sizes(levels, kind, batch, queries, heads, channels):
    shapes, points = (tuple(each) for each in zip(*levels, strict=True))
    references, method = kind
    sizes = {"batch": batch, "queries": queries, "heads": heads, "channels": channels}
    tensors = given(shapes, points, references=references, **sizes)
    found = outputs_and_gradients(by_torch, tensors, shapes, points, method=method)
    if queries:
        expected = outputs_and_gradients(by_grid_sample, tensors, shapes, points, method=method)
        assert_alike(found, expected, rtol=1e-11, atol=1e-12)
    else:
        assert found["output"].shape == (batch, 0, heads * channels)
        assert not found["value"].any()


@pytest.mark.parametrize("references", REFERENCES)
def test_gradients_are_those_of_finite_differences(references):
    tensors = given(SHAPES, POINTS, references=references, batch=1, queries=2)
    torch.autograd.gradcheck(
        lambda value, *others: by_torch(value, SHAPES, *others, POINTS), [tensors[name] for name in NAMES]
    )


def test_many_queries_are_worked_on_in_parts(monkeypatch):
    """As all positions of an encoder are: chunks of queries, and a sum by levels."""
    tensors = given(SHAPES, POINTS, references="boxes", queries=11)
    expected = outputs_and_gradients(by_torch, tensors)
    monkeypatch.setattr("detr.ops.bilinear_sums._SAMPLES_AT_ONCE", {"cpu": 2 * 2 * sum(POINTS)})
    monkeypatch.setattr("detr.ops.bilinear_sums._CORNERS_AT_ONCE", 1)
    assert_alike(outputs_and_gradients(by_torch, tensors), expected, rtol=1e-14, atol=1e-14)


def test_twice_the_same_gives_the_same_bits():
    shapes, points = ((40, 40), (20, 20)), (4, 4)
    tensors = given(shapes, points, queries=300, heads=8, channels=32, dtype=torch.float32)
    first, second = (outputs_and_gradients(by_torch, tensors, shapes, points) for _ in range(2))
    assert_alike(second, first, rtol=0, atol=0)


def test_at_exact_positions_the_slope_is_the_one_to_the_right():
    """As of grid_sample: what a layer starts with lies exactly in the middle of positions."""
    value = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64).view(1, 3, 1, 1)
    references = torch.tensor([[[0.5, 0.5]]], dtype=torch.float64)
    offsets = torch.zeros(1, 1, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    logits = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    by_torch(value, ((1, 3),), references, offsets, logits, (1,)).backward()
    assert offsets.grad[..., 0].item() == 90


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e30])
def test_numbers_out_of_bounds_read_nothing_out_of_bounds(number):
    tensors = given(SHAPES, POINTS)
    with torch.no_grad():
        tensors["offsets"][0, 0, 0, 0, 0] = number
    found = outputs_and_gradients(by_torch, tensors)
    assert found["output"][0, 0, :3].isnan().all() == (number != number)
    assert found["output"][:, 1:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["bilinear", "discrete"])
def test_half_precision_is_computed_in_float32(dtype, method):
    tensors = given(SHAPES, POINTS, references="boxes", dtype=dtype)
    found = outputs_and_gradients(by_torch, tensors, method=method)
    precise = {name: tensor.detach().float().requires_grad_() for name, tensor in tensors.items()}
    expected = outputs_and_gradients(by_torch, precise, method=method)
    assert found["output"].dtype == dtype
    assert torch.equal(found["output"], expected["output"].to(dtype))
    assert found["value"].dtype == dtype


def test_a_second_derivative_is_refused():
    tensors = given(SHAPES, POINTS)
    output = by_torch(tensors["value"], SHAPES, *(tensors[name] for name in NAMES[1:]), POINTS)
    first = torch.autograd.grad(output.sum(), tensors["offsets"], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no second derivative"):
        first.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_is_registered_as_pytorch_wants_it(dtype):
    tensors = given(SHAPES, POINTS, references="boxes", dtype=dtype)
    places, scales = (
        each.detach().clone().requires_grad_() for each in frames_of(tensors["references"], SHAPES, POINTS)
    )
    sizes = [side for shape in SHAPES for side in shape]
    offsets, logits = tensors["offsets"], tensors["logits"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute")  # opcheck itself asks for it
        torch.library.opcheck(bilinear_sums, (tensors["value"], places, scales, offsets, logits, sizes, list(POINTS)))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("method", ["bilinear", "discrete"])
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the compiler of PyTorch 2.10
def test_it_compiles_into_one_graph(method):
    tensors = given(SHAPES, POINTS, references="boxes", dtype=torch.float32)
    padding = padding_of(tensors["value"])

    compiled = torch.compile(deformable_attention, fullgraph=True)
    found = outputs_and_gradients(compiled, tensors, method=method, padding=padding)
    assert_alike(found, outputs_and_gradients(by_torch, tensors, method=method, padding=padding))


@pytest.mark.gpu
@pytest.mark.parametrize(("references", "method"), KINDS)
def test_on_a_cuda_device_it_is_the_same_as_on_the_cpu_and_the_same_twice(references, method):
    shapes, points = ((40, 40), (20, 20)), (4, 4)
    tensors = given(shapes, points, references=references, queries=300, heads=8, channels=32)
    there = {name: tensor.detach().cuda().requires_grad_() for name, tensor in tensors.items()}
    first, second = (outputs_and_gradients(by_torch, there, shapes, points, method=method) for _ in range(2))
    assert_alike(second, first, rtol=0, atol=0)
    here = outputs_and_gradients(by_torch, tensors, shapes, points, method=method)
    assert_alike({name: each if each is None else each.cpu() for name, each in first.items()}, here)
