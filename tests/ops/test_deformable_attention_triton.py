"""The fused kernels against `grid_sample`: interpreted on a CPU, as they are on a GPU."""

import pytest
import torch

pytest.importorskip("triton", reason="the fused kernels need Triton")

from detr.ops import deformable_attention, kernels
from detr.ops.deformable_attention_triton import _table, _unit, fused, fused_backward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES, POINTS, POSITIONS = ((3, 5), (2, 2), (1, 1)), (2, 1, 3), 20
NAMES = ("value", "references", "offsets", "logits")
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def given(
    *, sides=4, levels=None, batch=2, queries=3, channels=5, heads=2, dtype=torch.float64, shapes=SHAPES, points=POINTS
):
    """Points inside and outside the maps."""
    positions = sum(height * width for height, width in shapes)
    reference = (batch, queries, sides) if levels is None else (batch, queries, levels, sides)
    tensors = (
        torch.randn(batch, positions, heads, channels),
        torch.rand(reference) * 1.2 - 0.1,
        torch.randn(batch, queries, heads, sum(points), 2) * 2,
        torch.randn(batch, queries, heads, sum(points)),
    )
    return [tensor.to(DEVICE, dtype).requires_grad_() for tensor in tensors]


def padded():
    padding = torch.zeros(2, POSITIONS, dtype=torch.bool, device=DEVICE)
    padding[0, 3::4] = padding[1] = True
    padding[1, 5:9] = False
    return padding


def answers(form, tensors, *, shapes=SHAPES, points=POINTS, **options):
    """The output, and the gradient of each tensor for an arbitrary one of the output, by name."""
    copies = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    with kernels(form):
        out = deformable_attention(copies[0], shapes, *copies[1:], points, **options)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    grads = torch.autograd.grad((out * weights).sum(), copies, allow_unused=True)
    found = {"output": out.detach()}
    for name, tensor, grad in zip(NAMES, copies, grads, strict=True):
        found[name] = torch.zeros_like(tensor) if grad is None else grad
    return found


def assert_alike(found, expected, **tolerance):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("method", ["bilinear", "discrete"])
@pytest.mark.parametrize(("sides", "levels"), [(2, None), (4, None), (2, 3), (4, 3)])
def test_output_and_each_gradient_are_those_of_grid_sample(sides, levels, method, is_padded):
    tensors = given(sides=sides, levels=levels)
    options = {"method": method, "padding": padded() if is_padded else None}
    expected = answers("grid_sample", tensors, **options)
    assert_alike(answers("triton", tensors, **options), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", TYPES)
def test_short_types_are_computed_in_float32(dtype):
    tensors = given(dtype=dtype)
    found = answers("triton", tensors)
    expected = answers("grid_sample", [tensor.detach().float() for tensor in tensors])
    limits = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        error = (tensor.float() - expected[name]).norm() / expected[name].norm()
        assert error < limits[dtype], name


def test_types_may_be_mixed_as_under_autocast():
    value, references, offsets, logits = given(dtype=torch.float32)
    mixed = [value.bfloat16(), references, offsets.half(), logits.half()]
    found = answers("triton", mixed)
    assert [found[name].dtype for name in NAMES] == [tensor.dtype for tensor in mixed]
    expected = answers("grid_sample", [tensor.detach().float() for tensor in mixed])
    assert_alike({name: tensor.float() for name, tensor in found.items()}, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("channels", [1, 24, 32])
def test_any_number_of_queries_and_channels(queries, channels):
    tensors = given(queries=queries, channels=channels, heads=1)
    assert_alike(answers("triton", tensors), answers("grid_sample", tensors), rtol=1e-12, atol=1e-12)


def test_places_that_32_bits_cannot_say_are_counted_in_64(monkeypatch):
    monkeypatch.setattr("detr.ops.deformable_attention_triton._WIDE", 1)
    tensors, options = given(), {"padding": padded()}
    assert_alike(
        answers("triton", tensors, **options), answers("grid_sample", tensors, **options), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("batch", "queries"), [(2, 0), (0, 3), (0, 0)])
def test_no_queries_or_no_images_give_an_empty_output_and_no_gradient(batch, queries):
    found = answers("triton", given(batch=batch, queries=queries))
    assert found["output"].shape == (batch, queries, 10)
    assert not found["value"].any()


def test_parts_of_larger_tensors_are_read_where_they_lie():
    tensors = given()
    value, offsets = (
        torch.randn(2, 2, 20, 5, device=DEVICE).double(),
        torch.randn(2, 3, 6, 2, 2, device=DEVICE).double(),
    )
    strided = [value.transpose(1, 2), tensors[1], offsets.transpose(2, 3), tensors[3]]
    expected = answers("grid_sample", [tensor.contiguous() for tensor in strided])
    assert_alike(answers("triton", strided), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")  # of the interpreter
def test_a_place_that_is_no_number_gives_no_number():
    value, references, offsets, logits = (tensor.detach() for tensor in given())
    offsets[0, 0, 0, 0, 0] = torch.nan
    with kernels("triton"):
        out = deformable_attention(value, SHAPES, references, offsets, logits, POINTS)
    assert out[0, 0, :5].isnan().all() and out[0, 0, 5:].isfinite().all() and out[1].isfinite().all()


@pytest.fixture
def deterministic():
    """Then uninitialised memory is filled with NaN, too."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("method", ["bilinear", "discrete"])
def test_added_in_whole_numbers_the_gradients_are_as_exact(method):
    tensors = given()
    torch.use_deterministic_algorithms(False)  # on a GPU grid_sample has no gradient that is
    expected = answers("grid_sample", tensors, method=method)
    torch.use_deterministic_algorithms(True)
    assert_alike(answers("triton", tensors, method=method), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("factor", [1e-25, 1e30])
def test_tiny_and_huge_gradients_are_counted_as_well(factor):
    tensors = [tensor.detach().clone().requires_grad_() for tensor in given(dtype=torch.float32)]
    with kernels("triton"):
        out = deformable_attention(tensors[0], SHAPES, *tensors[1:], POINTS)
    small, large = (
        torch.autograd.grad(out, tensors[0], torch.full_like(out, by), retain_graph=True)[0] for by in (1, factor)
    )
    torch.testing.assert_close(large, small * factor, rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the interpreter says so, a GPU does not
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_no_number_is_not_hidden_by_counting(bad):
    tensors = given(dtype=torch.float32)
    with kernels("triton"):
        out = deformable_attention(tensors[0], SHAPES, *tensors[1:], POINTS)
    upstream = torch.ones_like(out)
    upstream[0, 0, 0] = bad
    assert not torch.autograd.grad(out, tensors[0], upstream)[0].isfinite().all()


@pytest.mark.parametrize("largest", [0.0, 1e-38, 1.0, 3e38])
def test_sums_in_whole_numbers_have_room(largest):
    unit = _unit(torch.tensor(largest, dtype=torch.float64), 20_000)
    assert 20_000 * largest * unit <= 2.0**61
    assert _unit(torch.tensor(largest), 20_000) == unit.float()
    assert unit.log2() == unit.log2().round()
    assert largest != 1.0 or 20_000 * largest * unit > 2.0**59


def operator_arguments(dtype=torch.float64):
    value, references, offsets, logits = given(dtype=dtype)
    return value, references, offsets, logits, padded(), _table(SHAPES, POINTS, value.device), True


def test_the_operator_keeps_what_it_promises_to_pytorch():
    torch.library.opcheck(
        fused, operator_arguments(), test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )
    value, *rest = (tensor.detach() if isinstance(tensor, torch.Tensor) else tensor for tensor in operator_arguments())
    grad = torch.randn(2, 3, 10, dtype=torch.float64, device=DEVICE)
    torch.library.opcheck(fused_backward, (grad, value, *rest, True), test_utils=("test_schema", "test_faketensor"))


def test_gradients_are_those_of_finite_differences():
    value, references, offsets, logits, padding, *rest = operator_arguments()
    few = [value[:1], references[:1, :1], offsets[:1, :1], logits[:1, :1]]
    few = [tensor.detach().clone().requires_grad_() for tensor in few]
    torch.autograd.gradcheck(lambda *parts: fused(*parts, padding[:1], *rest), few, fast_mode=True)


def test_a_second_derivative_is_refused():
    tensors = given()
    with kernels("triton"):
        out = deformable_attention(tensors[0], SHAPES, *tensors[1:], POINTS)
    (grad,) = torch.autograd.grad(out.sum(), tensors[2], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


def test_it_is_a_part_of_one_compiled_graph():
    torch._dynamo.reset()
    tensors = given()

    def attend(*parts):
        return deformable_attention(parts[0], SHAPES, *parts[1:], POINTS).square()

    with kernels("triton"):
        expected = attend(*tensors)
        found = torch.compile(attend, fullgraph=True, backend="aot_eager")(*tensors)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(*(torch.autograd.grad(out.sum(), tensors) for out in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)


ENCODER = ((100, 134), (50, 67), (25, 34), (13, 17))
DECODER = ((80, 80), (40, 40), (20, 20))


def full_size(dtype, shapes, queries, *, sides):
    points = (4,) * len(shapes)
    tensors = given(sides=sides, queries=queries, channels=32, heads=8, dtype=dtype, shapes=shapes, points=points)
    return tensors, {"shapes": shapes, "points": points}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("shapes", "queries", "sides"), [(ENCODER, 17_821, 2), (DECODER, 300, 4)])
def test_full_sizes_on_a_gpu(shapes, queries, sides, dtype):
    tensors, options = full_size(dtype, shapes, queries, sides=sides)
    found = answers("triton", tensors, **options)
    expected = answers("grid_sample", [tensor.detach().double() for tensor in tensors], **options)
    limits = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
    for name, tensor in found.items():
        error = (tensor.double() - expected[name]).norm() / expected[name].norm()
        assert error < limits[dtype], name


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", TYPES)
def test_twenty_runs_on_a_gpu_give_the_same_bits(dtype):
    tensors, options = full_size(dtype, ENCODER, 17_821, sides=2)
    first = answers("triton", tensors, **options)
    for _ in range(19):
        assert_alike(answers("triton", tensors, **options), first, rtol=0, atol=0)
