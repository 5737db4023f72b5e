import numpy as np
import pytest
import torch

from detr.export.preprocessing import Preparation, Resize
from detr.image import DETR_INPUT, InputConfig, prepare, resized

SMALL_DETR = DETR_INPUT.model_copy(update={"short": 64, "long": 100})
STRETCHED = InputConfig(height=64, width=96)
SIZES = [(48, 64), (64, 96), (1, 1), (3, 170), (50, 37), (100, 300), (67, 200), (64, 64)]


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("input", [STRETCHED, SMALL_DETR], ids=["stretched", "short side"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resizing_by_products_is_pillows_to_the_last_bit(input, size):
    given = picture(*size)
    expected = resized(given, input).float()
    _, height, width = expected.shape
    frame = (128, 128) if input.keeps_aspect else (64, 96)
    image, padding = Resize(input, frame)(torch.from_numpy(given)[None].permute(0, 3, 1, 2).float())
    assert torch.equal(image[0, :, :height, :width], expected)
    if padding is not None:
        assert image[0, :, height:].abs().sum() == image[0, :, :, width:].abs().sum() == 0
        assert int((~padding).sum()) == height * width
        assert not padding[0, :height, :width].any()


def test_what_shrinks_more_in_height_is_off_by_a_level_at_most():
    given = picture(150, 96)
    image, _ = Resize(STRETCHED, (64, 96))(torch.from_numpy(given)[None].permute(0, 3, 1, 2).float())
    assert (image[0] - resized(given, STRETCHED).float()).abs().max() <= 1


def test_the_sizes_that_keep_the_aspect_are_those_of_the_settings():
    module = Resize(DETR_INPUT, (1344, 1344))
    for height in range(1, 900, 37):
        for width in range(1, 1700, 61):
            sides = module._short_side(torch.tensor(height), torch.tensor(width))
            assert tuple(map(int, sides)) == DETR_INPUT.size_of(height, width), (height, width)


def test_pictures_become_what_the_network_takes():
    given, seen = picture(48, 80), {}
    images, padding = Preparation(SMALL_DETR, (128, 128))(torch.from_numpy(given)[None].expand(2, -1, -1, -1), seen)
    expected = prepare(given, SMALL_DETR)
    _, height, width = expected.shape
    torch.testing.assert_close(images[1, :, :height, :width], expected)
    assert images[padding[:, None].expand_as(images)].abs().max() == 0
    assert list(seen) == ["decode.image", "resize.image", "normalise.image"]
