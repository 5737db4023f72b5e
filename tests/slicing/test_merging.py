import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from detr.records import Detections
from detr.slicing import Slicing, View, merged, views_of

HEIGHT, WIDTH = 240, 400
SLICING = Slicing(120, 120, overlap=0.25, whole=False)
OVERLAP = 30


def shown(view, objects, labels, scores):
    """What a detector says that sees exactly what a view shows: each object as far as it lies in the view."""
    corners = np.array([(view.left, view.top, view.right, view.bottom)], float)
    boxes = np.array(objects, float).reshape(-1, 4)
    inside = np.concatenate([np.maximum(boxes[:, :2], corners[:, :2]), np.minimum(boxes[:, 2:], corners[:, 2:])], 1)
    visible = (inside[:, 2:] > inside[:, :2]).all(1)
    inside = inside[visible] - corners[:, [0, 1, 0, 1]]
    return Detections(
        torch.tensor(inside).float().reshape(-1, 4), torch.tensor(scores)[visible], torch.tensor(labels)[visible]
    )


def seen(objects, *, slicing=SLICING, labels=None, scores=None, size=(HEIGHT, WIDTH), most=300):
    """The boxes that come out, as a sorted list of tuples."""
    labels = [0] * len(objects) if labels is None else labels
    scores = [0.9 - 0.01 * number for number in range(len(objects))] if scores is None else scores
    views = views_of(*size, slicing)
    found = [shown(view, objects, labels, scores) for view in views]
    answer = merged(found, views, size=size, most=most)
    assert answer.scores.tolist() == sorted(answer.scores.tolist(), reverse=True)
    return sorted(tuple(round(value, 3) for value in box) for box in answer.boxes.tolist())


def iou(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    area = [np.prod(np.subtract(box[2:], box[:2])) for box in (one, other)]
    return shared / (sum(area) - shared)


@st.composite
def boxes(draw, most):
    width, height = draw(st.integers(6, most)), draw(st.integers(6, most))
    left, top = draw(st.integers(0, WIDTH - width)), draw(st.integers(0, HEIGHT - height))
    return (left, top, left + width, top + height)


@settings(deadline=None, max_examples=60)
@given(objects=st.lists(boxes(OVERLAP), min_size=1, max_size=12))
def test_each_small_object_comes_out_once_and_as_it_is(objects):
    assume(all(iou(one, other) < 0.5 for n, one in enumerate(objects) for other in objects[:n]))
    assert seen(objects) == sorted(tuple(map(float, box)) for box in objects)


@settings(deadline=None, max_examples=60)
@given(box=boxes(240))
def test_an_object_of_any_size_comes_out_once_and_whole(box):
    assert seen([box]) == [tuple(map(float, box))]
    assert seen([box], slicing=Slicing(120, 120, overlap=0.25)) == [tuple(map(float, box))]


@settings(deadline=None, max_examples=60)
@given(objects=st.lists(boxes(150), min_size=1, max_size=4))
def test_objects_apart_come_out_once_and_whole(objects):
    assume(all(iou(one, other) == 0 for n, one in enumerate(objects) for other in objects[:n]))
    assert seen(objects) == sorted(tuple(map(float, box)) for box in objects)


@pytest.mark.parametrize("left", range(60, 130, 5))
def test_neighbours_side_by_side_stay_two(left):
    """Wherever the seam runs: through one, through the other, or between them."""
    pair = [(left, 50, left + 40, 110), (left + 40, 50, left + 80, 110)]
    assert seen(pair) == sorted(tuple(map(float, box)) for box in pair)


def test_neighbours_that_overlap_much_in_one_view_stay_two():
    pair = [(20, 20, 60, 60), (26, 20, 66, 60)]
    assert len(seen(pair)) == 2


def test_classes_are_kept_apart():
    assert len(seen([(100, 50, 140, 90), (100, 50, 140, 90)], labels=[0, 1])) == 2


def test_an_object_longer_than_three_tiles_is_put_together():
    assert seen([(10, 100, 390, 112)]) == [(10.0, 100.0, 390.0, 112.0)]


def test_the_box_is_that_of_the_view_which_holds_it_whole():
    """And not a bit larger, though pieces are rough; the score is the best of all."""
    views = [View(0, 0, 100, 100), View(60, 0, 160, 100)]
    piece = Detections(torch.tensor([[80.0, 38.0, 99.0, 63.0]]), torch.tensor([0.9]), torch.tensor([0]))
    whole = Detections(torch.tensor([[20.0, 40.0, 50.0, 60.0]]), torch.tensor([0.6]), torch.tensor([0]))
    answer = merged([piece, whole], views, size=(100, 160), most=300)
    assert answer.boxes.tolist() == [[80, 40, 110, 60]]
    assert answer.scores.tolist() == pytest.approx([0.9])


def test_a_rough_piece_of_something_found_whole_is_left_out():
    views = [View(0, 0, 100, 100), View(60, 0, 160, 100)]
    piece = Detections(torch.tensor([[90.0, 44.0, 99.0, 52.0]]), torch.tensor([0.3]), torch.tensor([0]))
    whole = Detections(torch.tensor([[20.0, 40.0, 80.0, 90.0]]), torch.tensor([0.6]), torch.tensor([0]))
    answer = merged([piece, whole], views, size=(100, 160), most=300)
    assert answer.boxes.tolist() == [[80, 40, 140, 90]]


def test_a_small_object_before_a_large_one_is_kept():
    pair = [(100, 40, 230, 170), (150, 80, 170, 100)]
    assert seen(pair) == sorted(tuple(map(float, box)) for box in pair)


def test_nothing_is_suppressed_within_a_view():
    views = [View(0, 0, 100, 100), View(60, 0, 160, 100)]
    twice = Detections(torch.tensor([[5.0, 5.0, 25.0, 25.0]] * 2), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert len(merged([twice, nothing], views, size=(100, 160), most=300)) == 2


def test_at_most_so_many_come_out_the_best_first():
    objects = [(20 * n + 1, 10, 20 * n + 15, 24) for n in range(19)]
    assert seen(objects, most=3) == [(1.0, 10.0, 15.0, 24.0), (21.0, 10.0, 35.0, 24.0), (41.0, 10.0, 55.0, 24.0)]


def test_no_view_with_anything_gives_nothing():
    assert seen([]) == []


def test_a_single_view_comes_out_as_it_is():
    found = Detections(torch.tensor([[-3.5, 1.0, 10.25, 9.0]]), torch.tensor([0.5]), torch.tensor([2]))
    assert merged([found], [View(0, 0, 64, 64)], size=(64, 64), most=300) is found


def test_boxes_may_reach_over_the_border_of_the_picture_only():
    views = [View(0, 0, 100, 100), View(60, 0, 160, 100)]
    left = Detections(torch.tensor([[-2.0, -1.0, 30.0, 30.0]]), torch.tensor([0.5]), torch.tensor([0]))
    right = Detections(torch.tensor([[-5.0, 50.0, 30.0, 103.0]]), torch.tensor([0.4]), torch.tensor([0]))
    answer = merged([left, right], views, size=(100, 160), most=300)
    assert answer.boxes.tolist() == [[-2, -1, 30, 30], [60, 50, 90, 103]]
    answer = merged([turned(left), turned(right)], [turned_view(view) for view in views], size=(160, 100), most=300)
    assert answer.boxes.tolist() == [[-1, -2, 30, 30], [50, 60, 103, 90]]


def turned(found):
    """With x for y and y for x."""
    return Detections(found.boxes[:, [1, 0, 3, 2]], found.scores, found.labels)


def turned_view(view):
    return View(view.top, view.left, view.bottom, view.right)


@pytest.mark.parametrize(("gap", "boxes"), [(15, 1), (16, 2)])
def test_a_box_is_cut_where_it_ends_within_a_part_of_the_tiles_own_side(gap, boxes):
    """Tiles of 1,000 x 100 pixels: within 15 pixels of the far end, which for 100 pixels alone would be 4."""
    views = [View(0, 0, 1000, 100), View(900, 0, 1900, 100)]
    piece = Detections(torch.tensor([[700.0, 20.0, 1000.0 - gap, 60.0]]), torch.tensor([0.9]), torch.tensor([0]))
    other = Detections(torch.tensor([[0.0, 20.0, 300.0, 60.0]]), torch.tensor([0.8]), torch.tensor([0]))
    assert len(merged([piece, other], views, size=(100, 1900), most=9)) == boxes
    piece, other, views = turned(piece), turned(other), [turned_view(view) for view in views]
    assert len(merged([piece, other], views, size=(1900, 100), most=9)) == boxes


def test_a_view_that_is_scaled_down_is_taken_to_be_as_exact_as_its_pixels():
    """A tile and the whole picture at a tenth of its size: 2 to 4 pixels off are more than the latter can tell."""
    views = [View(0, 0, 100, 100), View(0, 0, 640, 640)]
    tile = Detections(torch.tensor([[40.0, 40.0, 50.0, 50.0]]), torch.tensor([0.9]), torch.tensor([0]))
    whole = Detections(torch.tensor([[42.0, 42.0, 54.0, 54.0]]), torch.tensor([0.4]), torch.tensor([0]))
    answer = merged([tile, whole], views, size=(640, 640), most=300, coarseness=[1, 10])
    assert answer.boxes.tolist() == [[40, 40, 50, 50]]
    assert len(merged([tile, whole], views, size=(640, 640), most=300)) == 2


@pytest.mark.parametrize(("apart", "boxes"), [(3.45, 1), (3.52, 2)])
def test_the_less_exact_of_two_views_may_be_off_by_half_of_its_pixels_but_one(apart, boxes):
    """Of 10 x 10 pixels, larger by 4.5 on each side: (19 - d)^2 is half of what both cover up to d = 3.49."""
    views = [View(0, 0, 100, 100), View(0, 0, 640, 640)]
    tile = Detections(torch.tensor([[40.0, 40.0, 50.0, 50.0]]), torch.tensor([0.9]), torch.tensor([0]))
    whole = Detections(tile.boxes + apart, torch.tensor([0.4]), torch.tensor([0]))
    assert len(merged([tile, whole], views, size=(640, 640), most=300, coarseness=[1, 10])) == boxes
