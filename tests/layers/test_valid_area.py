import pytest
import torch

from detr.layers.valid_area import cell_centres, on_levels, valid_ratios, valid_sizes

SHAPES = ((4, 6), (2, 3))


@pytest.fixture
def padding():
    """The first image is 2 x 4 cells of the fine level and 1 x 2 of the coarse one, the second fills the frame."""
    masks = []
    for (height, width), (inner_height, inner_width) in zip(SHAPES, ((2, 4), (1, 2)), strict=True):
        mask = torch.zeros(2, height, width, dtype=torch.bool)
        mask[0, inner_height:] = True
        mask[0, :, inner_width:] = True
        masks.append(mask.flatten(1))
    return torch.cat(masks, 1)


def test_sizes_and_ratios_are_those_of_each_image_width_first(padding):
    torch.testing.assert_close(valid_sizes(padding, SHAPES)[0], torch.tensor([[4.0, 2], [2, 1]]))
    torch.testing.assert_close(valid_ratios(padding, SHAPES)[0], torch.tensor([[4 / 6, 0.5], [2 / 3, 0.5]]))
    torch.testing.assert_close(valid_ratios(padding, SHAPES)[1], torch.ones(2, 2))
    assert valid_ratios(None, SHAPES) is None


def test_centres_are_shares_of_the_image(padding):
    centres = cell_centres(SHAPES, padding, padding.device)
    torch.testing.assert_close(centres[0, 0], torch.tensor([0.5 / 4, 0.5 / 2]))
    torch.testing.assert_close(centres[0, 24], torch.tensor([0.5 / 2, 0.5]))
    torch.testing.assert_close(centres[0, 23], torch.tensor([5.5 / 4, 3.5 / 2]))
    torch.testing.assert_close(centres[1:], cell_centres(SHAPES, None, padding.device))


def test_boxes_become_shares_of_the_frame(padding):
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(2, 3, 4)
    ratios = valid_ratios(padding, SHAPES)
    placed = on_levels(boxes, ratios)
    assert placed.shape == (2, 3, 2, 4)
    torch.testing.assert_close(placed[0, 0, 0], torch.tensor([1 / 3, 0.25, 0.4 / 3, 0.2]))
    torch.testing.assert_close(placed[1, 0, 1], boxes[1, 0])
    torch.testing.assert_close(on_levels(boxes[..., :2], ratios), placed[..., :2])
    assert on_levels(boxes, None) is boxes


def test_a_wholly_padded_image_gives_no_nan(padding):
    everything = torch.ones_like(padding)
    assert cell_centres(SHAPES, everything, padding.device).isfinite().all()
