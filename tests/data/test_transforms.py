from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from detr.boxes import cxcywh_to_xyxy
from detr.data.sample import Sample, drawing_from
from detr.data.transforms import AugmentConfig, _IoUCrop, augment, to_network
from detr.image import InputConfig

OFF = {"distort": 0, "zoom_out": 0, "iou_crop": 0, "flip": 0}


def sample(height: int, width: int, boxes: list[list[float]]) -> Sample:
    """Noise, with each box filled by 10 * its label: the label is readable from the pixels."""
    image = torch.randint(200, 255, (3, height, width), dtype=torch.uint8)
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    for label, (x1, y1, x2, y2) in enumerate(corners.int().tolist(), 1):
        image[:, y1:y2, x1:x2] = 10 * label
    return Sample(
        image=tv_tensors.Image(image),
        boxes=tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width)),
        labels=torch.arange(1, len(boxes) + 1),
        image_id=7,
        size=(height, width),
    )


@st.composite
def samples(draw):
    """Any size down to one pixel, no boxes up to six, each of at least a pixel."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append([x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))])
    return sample(height, width, boxes)


@settings(deadline=None, max_examples=60)
@given(samples(), st.integers(0, 1000))
def test_boxes_stay_inside_and_have_a_size(given_sample, index):
    seen = augment(given_sample, AugmentConfig(), seed=0, epoch=0, index=index)
    height, width = seen.image.shape[-2:]
    assert seen.boxes.canvas_size == (height, width)
    assert len(seen.boxes) == len(seen.labels) <= len(given_sample.labels)
    boxes = seen.boxes.as_subclass(Tensor)
    assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
    assert seen.size == given_sample.size and seen.image_id == 7


@settings(deadline=None, max_examples=60)
@given(samples(), st.integers(0, 1000))
def test_the_input_is_resized_and_its_boxes_are_shares_of_it(given_sample, index):
    seen = augment(given_sample, AugmentConfig(), seed=0, epoch=0, index=index)
    image, target = to_network(seen, InputConfig(height=32, width=64), min_size=1)
    assert image.shape == (3, 32, 64) and image.dtype == torch.uint8
    corners = cxcywh_to_xyxy(target.boxes)
    assert target.boxes.dtype == torch.float32 and target.boxes.shape == (len(target.labels), 4)
    assert (corners >= -1e-6).all() and (corners <= 1 + 1e-6).all() and (target.boxes[:, 2:] > 0).all()


@settings(deadline=None, max_examples=30)
@given(samples())
def test_flipping_twice_gives_the_sample_back(given_sample):
    always = AugmentConfig(**{**OFF, "flip": 1})
    once = augment(given_sample, always, seed=0, epoch=0, index=0)
    twice = augment(once, always, seed=0, epoch=0, index=0)
    assert torch.equal(twice.image, given_sample.image)
    assert torch.equal(twice.boxes, given_sample.boxes)
    assert torch.equal(twice.labels, given_sample.labels)


@pytest.mark.parametrize("index", range(12))
def test_labels_follow_their_boxes(index):
    whole = sample(80, 121, [[5, 5, 40, 30], [60, 5, 110, 35], [10, 45, 60, 75], [70, 45, 115, 78]])
    seen = augment(whole, AugmentConfig(distort=0), seed=index, epoch=0, index=index)
    for (x1, y1, x2, y2), label in zip(seen.boxes.int().tolist(), seen.labels.tolist(), strict=True):
        assert (seen.image[:, y1:y2, x1:x2] == 10 * label).all()


def test_nothing_is_changed_with_everything_off():
    whole = sample(33, 47, [[1, 2, 30, 20]])
    seen = augment(whole, AugmentConfig(**OFF), seed=0, epoch=0, index=0)
    assert torch.equal(seen.image, whole.image) and torch.equal(seen.boxes, whole.boxes)


def test_boxes_of_min_size_stay_and_smaller_ones_go():
    whole = sample(33, 47, [[1, 2, 30, 20], [5, 5, 6, 6], [5, 5, 5.9, 9], [5, 5, 9, 5.9]])
    assert augment(whole, AugmentConfig(**OFF), seed=0, epoch=0, index=0).labels.tolist() == [1, 2]
    seen = augment(whole, AugmentConfig(**OFF, min_size=0), seed=0, epoch=0, index=0)
    assert seen.labels.tolist() == [1, 2, 3, 4]


def test_a_canvas_to_zoom_out_into_is_grey_and_mosaics_are_neither_zoomed_nor_cropped():
    whole = sample(33, 47, [[1, 2, 30, 20]])
    config = AugmentConfig(**{**OFF, "zoom_out": 1, "zoom_fill": 77})
    seen = augment(whole, config, seed=0, epoch=0, index=0)
    left, top = (seen.boxes[0, :2] - torch.tensor([1.0, 2])).int().tolist()
    assert seen.image.shape[1] > 33 and torch.equal(seen.image[:, top : top + 33, left : left + 47], whole.image)
    assert int((seen.image == 77).all(0).sum()) >= seen.image[0].numel() - 33 * 47
    config = AugmentConfig(distort=0, zoom_out=1, iou_crop=1, flip=0)
    assert torch.equal(augment(whole, config, seed=0, epoch=0, index=0, is_mosaic=True).image, whole.image)


def test_of_images_whose_channels_are_no_colours_brightness_and_contrast_change_by_odds():
    """Values v of a mean m become b * (m + c * (v - m)): b is read from a flat channel, c from one of two values."""
    image = torch.full((2, 8, 8), 200, dtype=torch.uint8)
    image[1] = 50
    image[1, 4:] = 150
    whole = replace(sample(8, 8, []), image=tv_tensors.Image(image))
    config = AugmentConfig(**{**OFF, "distort": 0.5})
    seen = torch.stack([augment(whole, config, seed=0, epoch=0, index=index).image for index in range(80)]).float()
    brightness, means = seen[:, 0, 0, 0] / 200, seen[:, 1].mean((1, 2))
    contrast = (seen[:, 1, 7, 0] - seen[:, 1, 0, 0]) / (100 * brightness)
    torch.testing.assert_close(means, 100 * brightness, rtol=0, atol=1.0)
    for factor, low, high, rounded in ((brightness, 0.875, 1.125, 0.003), (contrast, 0.5, 1.5, 0.02)):
        room = (high - low) / 10
        assert low - rounded <= factor.min() < low + room and high - room < factor.max() <= high + rounded
        assert 25 <= int(((factor - 1).abs() < rounded / 2).sum()) <= 55


@pytest.mark.parametrize(("odds", "fewest", "most"), [(1.0, 28, 40), (0.25, 4, 14)])
def test_crops_come_as_often_as_they_are_asked_for(odds, fewest, most):
    """Of seven kinds of crop one is none."""
    whole, config = sample(60, 80, [[10, 10, 60, 50]]), AugmentConfig(**{**OFF, "iou_crop": odds})
    shapes = [augment(whole, config, seed=0, epoch=0, index=index).image.shape for index in range(40)]
    assert fewest <= sum(shape != whole.image.shape for shape in shapes) <= most


def test_after_the_stop_epoch_only_flips_are_left():
    whole = sample(33, 47, [[1, 2, 30, 20]])
    config = AugmentConfig(distort=1, zoom_out=1, iou_crop=1, flip=1, stop_epoch=3)
    assert augment(whole, config, seed=0, epoch=2, index=0).image.shape != whole.image.shape
    for index in range(6):
        seen = augment(whole, config, seed=0, epoch=3, index=index)
        assert torch.equal(seen.image, whole.image.flip(-1))


@pytest.mark.parametrize("boxes", [[], [[1, 2, 30, 20]]], ids=["no target", "one target"])
def test_a_draw_is_a_function_of_seed_epoch_and_index(boxes):
    whole = sample(33, 47, boxes)

    def seen(seed=0, epoch=0, index=0):
        return augment(whole, AugmentConfig(), seed=seed, epoch=epoch, index=index)

    torch.manual_seed(1)
    first = seen()
    torch.manual_seed(2)
    assert torch.equal(seen().image, first.image) and torch.equal(seen().boxes, first.boxes)
    others = [seen(seed=i).image for i in range(1, 6)] + [seen(epoch=i).image for i in range(1, 6)]
    others += [seen(index=i).image for i in range(1, 6)]
    differ = [one.shape != first.image.shape or not torch.equal(one, first.image) for one in others]
    assert sum(differ) >= 12


def test_torchs_random_numbers_go_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with drawing_from(1, 2, 3):
        inner = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with drawing_from(1, 2, 3):
        assert torch.equal(torch.rand(3), inner)


def test_small_boxes_are_left_out_of_the_input():
    whole = sample(100, 100, [[0, 0, 100, 100], [10, 10, 12, 60], [10, 10, 14, 14]])
    _, target = to_network(whole, InputConfig(height=32, width=32), min_size=1)
    assert target.labels.tolist() == [1, 3]
    assert len(to_network(whole, InputConfig(height=32, width=32))[1].labels) == 3


def test_boxes_of_the_input_are_shares_of_its_sides_and_small_by_its_own_pixels():
    """A picture of 100 x 200 as an input of 16 x 64: 6.25 pixels down and 3.125 across become one."""
    boxes = [[20, 20, 40, 60], [0, 0, 3.125, 6.25], [0, 0, 3.125, 6.2], [0, 0, 3.1, 6.25], [-20, 50, 20, 150]]
    _, target = to_network(sample(100, 200, boxes), InputConfig(height=16, width=64), min_size=1)
    assert target.labels.tolist() == [1, 2, 5] and target.size == (100, 200)
    torch.testing.assert_close(target.boxes[0], torch.tensor([0.15, 0.4, 0.1, 0.4]))
    torch.testing.assert_close(target.boxes[2], torch.tensor([0.05, 0.75, 0.1, 0.5]))


def test_the_crop_has_the_odds_of_torchvisions():
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[10.0, 20, 120, 90], [100, 50, 260, 200], [5, 5, 25, 30]]), format="XYXY", canvas_size=(240, 320)
    )

    def moments(crop, rounds=500):
        rows = []
        for _ in range(rounds):
            found = crop.make_params([boxes])
            if found:
                place = [found[key] / 100 for key in ("top", "left", "height", "width")]
                rows.append([*place, *found["is_within_crop_area"].tolist()])
        values = np.array(rows, float)
        return np.array([len(rows) / rounds, *values.mean(0), *values.std(0)])

    assert np.abs(moments(_IoUCrop()) - moments(v2.RandomIoUCrop())).max() < 0.12


def test_a_crop_keeps_the_drawn_overlap_with_some_box():
    whole = sample(90, 120, [[30, 20, 80, 70]])
    crop = _IoUCrop(sampler_options=[0.7])
    for _ in range(5):
        found = crop.make_params([whole.boxes])
        left, top = found["left"], found["top"]
        right, bottom = left + found["width"], top + found["height"]
        inner = (min(right, 80) - max(left, 30)) * (min(bottom, 70) - max(top, 20))
        assert inner / (50 * 50 + found["width"] * found["height"] - inner) >= 0.7
        assert found["is_within_crop_area"].tolist() == [True]


@pytest.mark.parametrize(
    ("setting", "least", "most"),
    [
        *((share, 0, 1) for share in ("distort", "zoom_out", "iou_crop", "flip")),
        *((f"{room}.probability", 0, 1) for room in ("mosaic", "mixup", "copy_blend")),
        *((epoch, 0, None) for epoch in ("start_epoch", "flat_epoch", "stop_epoch")),
        ("zoom_fill", 0, 255),
        ("min_size", 0, None),
        ("mosaic.size", 0.001, 1),
        ("mosaic.rotation", 0, 180),
        ("mosaic.translation", 0, 1),
        ("copy_blend.objects", 1, None),
        ("copy_blend.min_area", 0, None),
    ],
)
def test_a_setting_reaches_its_bounds_and_no_further(setting, least, most):
    def set_to(value):
        room, _, name = setting.rpartition(".")
        config = AugmentConfig(**({room: {name: value}} if room else {name: value}))
        return getattr(getattr(config, room) if room else config, name)

    for bound, beyond in ((least, least - 1), (most, None if most is None else most + 1)):
        if bound is not None:
            assert set_to(bound) == bound
            with pytest.raises(ValidationError, match=setting):
                set_to(beyond)
