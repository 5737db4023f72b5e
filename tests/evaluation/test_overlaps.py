import numpy as np
import pytest
from pycocotools import mask

from detr.evaluation import overlaps
from detr.evaluation.overlaps import overlapping


def boxes(draw, count):
    return np.concatenate([draw.uniform(0, 60, (count, 2)), draw.uniform(1, 40, (count, 2))], 1)


@pytest.mark.parametrize("at_once", [7, 1 << 20])
@pytest.mark.parametrize("crowd", [False, True])
def test_pairs_and_ious_are_those_of_pycocotools(crowd, at_once, monkeypatch):
    monkeypatch.setattr(overlaps, "_PAIRS_AT_ONCE", at_once)
    draw = np.random.default_rng(0)
    first, second = boxes(draw, 40), boxes(draw, 30)
    first_images, second_images = draw.integers(0, 4, 40), draw.integers(0, 4, 30)
    pairs = overlapping(first, first_images, second, second_images, crowd=crowd)
    expected = mask.iou(first, second, [crowd] * 30) * (first_images[:, None] == second_images)
    rows, columns = np.nonzero(expected)
    assert pairs.first.tolist() == rows.tolist() and pairs.second.tolist() == columns.tolist()
    assert pairs.iou.tolist() == expected[rows, columns].tolist()


def test_boxes_that_only_touch_do_not_overlap():
    pairs = overlapping(np.array([[0.0, 0, 5, 5]]), np.array([0]), np.array([[5.0, 0, 5, 5]]), np.array([0]))
    assert len(pairs.iou) == 0


def test_nothing_overlaps_nothing():
    nothing = np.empty((0, 4)), np.empty(0, np.int64)
    assert len(overlapping(*nothing, *nothing).iou) == 0
    assert len(overlapping(np.ones((1, 4)), np.zeros(1, np.int64), *nothing).iou) == 0
