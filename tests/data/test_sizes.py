import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torchvision import tv_tensors

from detr.data.sample import Sample, drawing_from
from detr.data.sizes import SizesConfig, cropped, drawn_input, spread_sides
from detr.data.transforms import AugmentConfig, augment
from detr.image import InputConfig

PLAIN = {"distort": 0, "zoom_out": 0, "iou_crop": 0, "flip": 0}
SHORT = InputConfig(resize="short side")


def sample(height: int, width: int, boxes: list[list[float]]) -> Sample:
    """Each pixel says where it is; labels count from 1."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return Sample(
        image=tv_tensors.Image(torch.stack([y, x, y]).to(torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), format="XYXY", canvas_size=(height, width)
        ),
        labels=torch.arange(1, len(boxes) + 1),
        image_id=7,
        size=(height, width),
    )


def drawn(function, key, *arguments):
    with drawing_from(key):
        return function(*arguments)


def test_sides_are_drawn_from_the_list_alike():
    shorts = [drawn(drawn_input, key, SHORT, SizesConfig()).short for key in range(400)]
    assert sorted(set(shorts)) == list(range(480, 801, 32))
    assert min(shorts.count(side) for side in set(shorts)) > 400 / 11 / 3


@pytest.mark.parametrize("key", range(8))
def test_a_part_is_cut_with_its_boxes(key):
    whole = sample(120, 200, [[0, 0, 200, 120], [10, 10, 20, 20], [190, 110, 200, 120]])
    part = drawn(cropped, key, whole, SizesConfig())
    height, width = part.image.shape[1:]
    top, left = (int(part.image[plane, 0, 0]) for plane in (0, 1))
    assert torch.equal(part.image, whole.image[:, top : top + height, left : left + width])
    assert 384 / 600 * 120 - 1 <= height <= 120 and 384 / 600 * 120 - 1 <= width <= 600 / 400 * 120 + 1
    moved = whole.boxes.as_subclass(Tensor) - torch.tensor([left, top, left, top])
    limits = torch.tensor([width, height, width, height])
    clipped = moved.clamp(min=0).minimum(limits)
    kept = (clipped[:, 2:] > clipped[:, :2]).all(1)
    assert torch.equal(part.boxes.as_subclass(Tensor), clipped[kept]) and torch.equal(part.labels, whole.labels[kept])
    assert part.boxes.canvas_size == (height, width) and part.size == (120, 200)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 250), st.integers(1, 250), st.integers(0, 999))
def test_a_part_of_any_image_is_inside_it(height, width, key):
    part = drawn(cropped, key, sample(height, width, [[0, 0, width, height]]), SizesConfig())
    h, w = part.image.shape[1:]
    assert 1 <= h <= height and 1 <= w <= width and part.boxes.tolist() == [[0, 0, w, h]]


def test_the_part_is_as_large_as_the_official_one():
    """Of a square of 100 at scales 400, 500, 600: sides 384 to the scale's own, as shares of it."""
    shares = [drawn(cropped, key, sample(100, 100, []), SizesConfig()).image.shape[1] for key in range(300)]
    assert min(shares) in (64, 65) and max(shares) == 100
    expected = sum((384 + scale) / 2 / scale for scale in (400, 500, 600)) / 3 * 100
    assert sum(shares) / len(shares) == pytest.approx(expected, abs=2)


def test_half_of_the_samples_are_cut_until_the_stop_epoch():
    config = AugmentConfig(**PLAIN, sizes=SizesConfig(crop_from=(600,), crop_sides=(300, 301)), stop_epoch=1)
    whole = sample(100, 150, [[5, 5, 100, 90]])

    def cut(epoch):
        return sum(augment(whole, config, seed=0, epoch=epoch, index=i).image.shape[1] < 100 for i in range(100))

    assert 35 < cut(0) < 65 and cut(1) == 0


def test_sizes_go_along_with_the_input():
    half = SizesConfig(sides=(480, 800)).scaled(0.5)
    assert half == SizesConfig(sides=(240, 400), crop_from=(200, 250, 300), crop_sides=(192, 300))


@pytest.mark.parametrize("wrong", [{"sides": ()}, {"crop_from": (0,)}, {"crop_sides": (600, 384)}])
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValidationError):
        SizesConfig(**wrong)


def test_spread_sides_are_those_of_the_recipes():
    around_640 = (480, 512, 544, 576, 608, *[640] * 3, 672, 704, 736, 768, 800)
    assert spread_sides(InputConfig(), 3) == around_640
    assert spread_sides(InputConfig(), 20).count(640) == 20
    assert spread_sides(InputConfig(height=320, width=320), 1) == (224, 256, 288, 320, 320, 352, 384)
    assert spread_sides(InputConfig(height=32, width=32), 2) == (32, 32, 32, 32)
