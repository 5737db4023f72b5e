import shutil

import pytest
import torch
from torch.nn import functional as F

from detr.layers import tiles


def channels_last(*shape, seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def roundings(kernel, image, bias):
    """By how much the tiles' answers and the convolution's differ from exact ones, root mean square."""
    exact = F.conv2d(image.double(), kernel.double(), bias.double())
    products = F.conv2d(tiles.apart(image), tiles.matrices(kernel), groups=tiles.NUMBERS)
    answers = tiles.together(products, bias)
    return [(each - exact).square().mean().sqrt().item() for each in (answers, F.conv2d(image, kernel, bias))]


@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (2, 8, 10, 18), (3, 160, 14, 6)])
def test_tiles_give_a_convolution_within_ten_of_its_roundings(shape):
    kernel, bias = channels_last(5, shape[1], 3, 3, seed=1), torch.randn(5, generator=torch.Generator().manual_seed(2))
    by_tiles, convolved = roundings(kernel, channels_last(*shape), bias)
    assert 0 < by_tiles < 10 * max(convolved, 1e-7 * shape[1] ** 0.5)


def test_numbers_with_few_digits_are_exact():
    image = torch.arange(36.0).reshape(1, 1, 6, 6) % 5
    numbers = tiles.apart(image).flatten()
    gather = torch.tensor(tiles._ROWS_APART).double()
    assert torch.equal(numbers.double(), (gather @ image[0, 0].double() @ gather.T).flatten())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_compiled_tiles_are_those_of_the_matrices():
    def both(padded, bias):
        numbers = tiles.apart(padded)
        return numbers, tiles.together(numbers, bias)

    padded, bias = channels_last(2, 20, 6, 10), torch.arange(20.0)
    compiled, expected = torch.compile(both, fullgraph=True)(padded, bias), both(padded, bias)
    for answer, plain in zip(compiled, expected, strict=True):
        torch.testing.assert_close(answer, plain, rtol=1e-5, atol=1e-4)
        assert answer.is_contiguous(memory_format=torch.channels_last)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(tiles._compiled_apart, (padded,), test_utils=checks)
    torch.library.opcheck(tiles._compiled_together, (expected[0], bias), test_utils=checks)
