import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torchvision import tv_tensors

from detr.data.mosaic import MosaicConfig, mosaic
from detr.data.sample import Sample, drawing_from
from detr.data.transforms import AugmentConfig
from detr.image import InputConfig

SIDES = st.integers(1, 70)
STILL = MosaicConfig(rotation=0, translation=0, scale=(1, 1))


def sample(height: int, width: int, label: int = 1, boxes: int = 1) -> Sample:
    """A picture of brightness 40 * label whose boxes are its middle part."""
    corners = torch.tensor([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]] * boxes).reshape(-1, 4)
    return Sample(
        image=tv_tensors.Image(torch.full((3, height, width), 40 * label, dtype=torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width)),
        labels=torch.full((boxes,), label),
        image_id=f"image {label}",
        size=(height, width),
    )


FOUR = [sample(40, 60, 1), sample(80, 60, 2), sample(20, 20, 3, boxes=0), sample(90, 60, 4, boxes=2)]


def test_each_of_the_four_stands_in_its_quarter_with_its_boxes():
    seen = mosaic(FOUR, STILL.model_copy(update={"size": 1 / 3}), InputConfig(height=60, width=60))
    assert seen.image.shape == (3, 60, 60)  # 20 x 30, 26 x 20, 20 x 20 and 30 x 20, so quarters of 30 x 30
    assert seen.image_id == "image 1" and seen.size == (40, 60)
    assert seen.labels.tolist() == [1, 2, 4, 4]
    expected = [[7.5, 5, 22.5, 15], [35, 6.5, 45, 19.5], [35, 37.5, 45, 52.5], [35, 37.5, 45, 52.5]]
    torch.testing.assert_close(seen.boxes.as_subclass(Tensor), torch.tensor(expected))
    for (y, x), label in {(1, 1): 1, (1, 31): 2, (31, 1): 3, (31, 31): 4, (25, 1): 0, (1, 55): 0}.items():
        assert (seen.image[:, y, x] == 40 * label).all()


def test_the_picture_and_its_boxes_move_together():
    config = MosaicConfig(rotation=0, translation=0.1, scale=(0.7, 1.3))
    for key in range(8):
        with drawing_from(key):
            seen = mosaic([sample(60, 60, label) for label in (1, 2, 3, 4)], config, InputConfig(height=120, width=120))
        assert seen.image.shape == (3, 120, 120)
        for (x1, y1, x2, y2), label in zip(seen.boxes.round().int().tolist(), seen.labels.tolist(), strict=True):
            inner = seen.image[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
            assert inner.numel() == 0 or (inner == 40 * label).all()


@pytest.mark.parametrize(
    ("rotation", "translation", "across", "down"), [(0, 0.1, 16, 8), (10, 0, 20 * 0.174 + 40 * 0.016, 40 * 0.174)]
)
def test_a_mosaic_moves_by_shares_of_its_own_sides_and_turns_both_ways(rotation, translation, across, down):
    """Of 80 x 160 pixels; the middle of the first box lies 40 to the left of its middle and 20 above."""
    config = MosaicConfig(rotation=rotation, translation=translation, scale=(1, 1))
    middles = []
    for key in range(30):
        with drawing_from(key):
            seen = mosaic([sample(40, 80)] * 4, config, InputConfig(height=80, width=160))
        x1, y1, x2, y2 = seen.boxes[0].tolist()
        middles.append([(x1 + x2) / 2 - 40, (y1 + y2) / 2 - 20])
    moved = torch.tensor(middles)
    assert (moved.abs().amax(0) <= torch.tensor([across, down]) + 0.6).all()
    assert (moved.amax(0) > 0.4 * torch.tensor([across, down])).all()
    assert (moved.amin(0) < -0.4 * torch.tensor([across, down])).all()


def test_a_turned_box_holds_what_it_held():
    """The boxes of a turned mosaic are those around the turned ones: the marks in them stay inside."""
    marked = [sample(60, 60, 0) for _ in range(4)]
    for one in marked:
        one.image[:, 15:45, 15:45] = 200
    for key in range(8):
        with drawing_from(key):
            seen = mosaic(
                marked, MosaicConfig(rotation=30, translation=0, scale=(0.6, 0.6)), InputConfig(height=120, width=120)
            )
        outside = seen.image[0] > 100
        for x1, y1, x2, y2 in seen.boxes.tolist():
            outside[max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = False
        assert len(seen.boxes) == 4 and not outside.any()


@settings(deadline=None, max_examples=40)
@example(shapes=[(1, 1, 0), (1, 1, 0), (27, 19, 0), (1, 1, 1)], key=1)  # a hair over the edge by rounding
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(0, 3)), min_size=4, max_size=4),
    st.integers(0, 999),
)
def test_boxes_stay_inside_and_labels_stay_with_them(shapes, key):
    four = [sample(height, width, label, boxes) for label, (height, width, boxes) in enumerate(shapes, 1)]
    with drawing_from(key):
        seen = mosaic(four, MosaicConfig(), InputConfig(height=47, width=31))
    height, width = seen.image.shape[1:]
    boxes = seen.boxes.as_subclass(Tensor)
    assert seen.boxes.canvas_size == (height, width) and seen.image.dtype == torch.uint8
    assert boxes.shape == (sum(boxes for *_, boxes in shapes), 4) and len(seen.labels) == len(boxes)
    assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()


def test_a_mosaic_is_of_the_inputs_size():
    for input, size in (
        (InputConfig(height=32, width=64), (32, 64)),
        (InputConfig(resize="short side", short=40, long=100), (40, 40)),  # quarters of 30 x 30
    ):
        seen = mosaic(FOUR, MosaicConfig(), input)
        assert seen.image.shape == (3, *size) and seen.boxes.canvas_size == size


def test_the_same_draws_give_the_same_mosaic():
    def seen(key):
        with drawing_from(key):
            return mosaic(FOUR, MosaicConfig(), InputConfig(height=47, width=31))

    assert torch.equal(seen(1).image, seen(1).image) and torch.equal(seen(1).boxes, seen(1).boxes)
    assert not torch.equal(seen(1).image, seen(2).image)


@pytest.mark.parametrize("scale", [(1.5, 0.5), (0, 1)])
def test_scales_that_cannot_be_are_refused(scale):
    with pytest.raises(ValidationError, match="smaller one first"):
        MosaicConfig(scale=scale)


def test_epochs_of_strong_dense_and_plain_augmentation():
    config = AugmentConfig(start_epoch=4, flat_epoch=6, stop_epoch=8, copy_blend={"until": "flat_epoch"})
    assert [epoch for epoch in range(10) if config.is_strong(epoch)] == [4, 5, 6, 7]
    assert [epoch for epoch in range(10) if config.is_dense(epoch)] == [4, 5]
    assert [epoch for epoch in range(10) if config.draws_scales(epoch)] == list(range(8))
    assert [epoch for epoch in range(10) if config.blends_copies(epoch)] == [4, 5]
    longer = config.model_copy(update={"copy_blend": None})
    assert [epoch for epoch in range(10) if longer.blends_copies(epoch)] == [4, 5, 6, 7]
