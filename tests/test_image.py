import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from detr.image import InputConfig, StretchedInput, as_input, normalise, padded, prepare, resized

RAMP = np.stack([np.tile(np.linspace(0, 255, 60), (40, 1))] * 3, -1).astype(np.uint8)  # [40, 60, 3]


def test_prepare_resizes_and_scales():
    tensor = prepare(np.full((10, 20, 3), 255, np.uint8), InputConfig(height=32, width=64))
    assert tensor.shape == (3, 32, 64) and tensor.dtype == torch.float32
    assert (tensor == 1).all()


def test_prepare_normalises_by_channel():
    image = np.full((4, 4, 3), (51, 102, 255), np.uint8)
    tensor = prepare(image, InputConfig(height=4, width=4, mean=(0.2, 0.2, 0.0), std=(0.5, 0.2, 1.0)))
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor([0.0, 1.0, 1.0]))


def test_normalising_leaves_what_it_is_given_as_it_was():
    given = torch.full((3, 2, 2), 51.0)
    torch.testing.assert_close(
        normalise(given, InputConfig(mean=(0.1,) * 3, std=(0.5,) * 3)), torch.full((3, 2, 2), 0.2)
    )
    assert (given == 51).all()


def test_prepare_leaves_pixels_alone_where_the_size_is_right():
    tensor = prepare(RAMP, InputConfig(height=40, width=60))
    np.testing.assert_array_equal((tensor * 255).round().byte().permute(1, 2, 0).numpy(), RAMP)


# (height, width) of an image -> that of the input at 800 and 1333, as the rule of DETR gives it: the shorter side is
# rounded where the limit binds, the longer one cut, so that it may be one more than the limit
SHORT_SIDES = {
    (480, 640): (800, 1066),
    (640, 480): (1066, 800),
    (427, 640): (800, 1199),
    (375, 500): (800, 1066),
    (800, 1333): (800, 1333),
    (800, 1334): (799, 1332),
    (800, 900): (800, 900),
    (1080, 1920): (750, 1333),
    (300, 640): (625, 1333),
    (640, 200): (1334, 417),
    (7, 7): (800, 800),
    (1, 10_000): (1, 1333),
    (3000, 2): (1500, 1),
}


@pytest.mark.parametrize("image", SHORT_SIDES)
def test_sizes_of_inputs_that_keep_the_aspect(image):
    assert InputConfig(resize="short side").size_of(*image) == SHORT_SIDES[image]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 900), st.integers(0, 900))
def test_an_input_that_keeps_the_aspect_does_so_and_stays_within_its_limits(height, width, short, more):
    config = InputConfig(resize="short side", short=short, long=short + more)
    h, w = config.size_of(height, width)
    assert config.size_of(width, height) == (w, h)
    assert 1 <= min(h, w) <= short
    assert max(h, w) <= config.long + 0.5 * max(height, width) / min(height, width) + 1
    assert min(h, w) == short or max(h, w) >= config.long - 0.5 * max(height, width) / min(height, width) - 1
    if min(h, w) > 1:
        assert max(h, w) / min(h, w) == pytest.approx(max(height, width) / min(height, width), abs=1 / min(h, w))


def test_an_input_that_keeps_the_aspect_is_resized_to_it():
    config = InputConfig(resize="short side", short=20, long=50)
    assert prepare(RAMP, config).shape == (3, 20, 30) and config.frame == (20, 50)
    assert prepare(np.ascontiguousarray(RAMP.swapaxes(0, 1)), config).shape == (3, 30, 20)


def test_inputs_as_old_files_have_them_are_stretched():
    config = InputConfig(height=32, width=64, interpolation="bilinear")
    assert not config.keeps_aspect and config.size_of(100, 100) == config.frame == (32, 64)
    with pytest.raises(ValueError, match="interpolation"):
        InputConfig(interpolation="nearest")


@pytest.mark.parametrize(
    "settings",
    [
        {"short": 800, "long": 799},
        {"mean": (0, 0, 0)},
        {"std": (1, 1, 1)},
        {"mean": (0, 0, 0), "std": (1, 1, 0)},
        {"mean": (0, 0), "std": (1, 1, 1)},
        {"mean": (0, 0, 0), "std": (1, 1)},
        *({side: pixels} for side in ("height", "width", "short", "long") for pixels in (0, 8193)),
        *({"channels": channels} for channels in (0, 65)),
    ],
)
def test_inputs_that_cannot_be_are_refused(settings):
    with pytest.raises(ValidationError):
        InputConfig(**settings)


def test_inputs_reach_their_bounds():
    assert InputConfig(height=1, width=8192, channels=64).frame == (1, 8192)
    assert InputConfig(resize="short side", short=1, long=1).size_of(5, 5) == (1, 1)


def test_models_that_know_no_padding_refuse_to_keep_the_aspect():
    assert TypeAdapter(StretchedInput).validate_python({"height": 32, "width": 64}).frame == (32, 64)
    with pytest.raises(ValidationError, match="needs 'stretch'"):
        TypeAdapter(StretchedInput).validate_python({"resize": "short side"})


def test_images_of_one_size_are_not_padded():
    batch, padding = padded([torch.ones(3, 4, 5), torch.zeros(3, 4, 5)])
    assert batch.shape == (2, 3, 4, 5) and padding is None


def test_smaller_images_are_padded_with_zeros_to_the_right_and_below():
    images = [torch.rand(3, 4, 2) + 1, torch.rand(3, 3, 5) + 1]
    batch, padding = padded(images)
    assert batch.shape == (2, 3, 4, 5) and padding.shape == (2, 4, 5)
    for image, one, mask in zip(images, batch, padding, strict=True):
        height, width = image.shape[1:]
        assert torch.equal(one[:, :height, :width], image) and not mask[:height, :width].any()
        assert int(mask.sum()) == 20 - height * width and (one[:, mask] == 0).all()


@pytest.mark.parametrize(
    "config",
    [
        InputConfig(height=32, width=64),
        InputConfig(resize="short side", short=20, long=50, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
    ],
)
def test_pictures_that_travel_as_bytes_become_what_prepare_gives(config):
    """Also where they are padded: there the network sees zeros, not what black is after normalising."""
    pictures = [RAMP, np.ascontiguousarray(RAMP.swapaxes(0, 1))]
    bytes_, padding = padded([resized(picture, config) for picture in pictures])
    expected, _ = padded([prepare(picture, config) for picture in pictures])
    assert bytes_.dtype == torch.uint8 and (padding is not None) == config.keeps_aspect
    assert torch.equal(as_input(bytes_, padding, config), expected)


def test_what_is_an_input_already_stays_as_it_is():
    images = torch.rand(1, 3, 8, 8)
    assert as_input(images, None, InputConfig(mean=(0.5,) * 3, std=(0.5,) * 3)) is images
