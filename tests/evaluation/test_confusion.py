import numpy as np
import pytest
from made_sets import found, random_case, truths

from detr.evaluation.confusion import confusion
from detr.evaluation.outcomes import outcomes

CAT, DOG, NOTHING = 0, 1, 2
BOX = (50, 50, 40, 40)


def matrix(truth, detections, score=0.25):
    return confusion(outcomes(truth, detections), score=score).counts.tolist()


def test_a_right_box_a_wrong_class_a_phantom_and_a_miss_have_their_cells():
    truth = truths((0, CAT, *BOX), (0, DOG, 150, 50, 40, 40), (1, DOG, *BOX))
    detections = found((0, CAT, *BOX, 0.9), (0, CAT, 150, 50, 40, 40, 0.8), (2, DOG, *BOX, 0.7))
    assert matrix(truth, detections) == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_boxes_scored_below_do_not_count():
    assert matrix(truths((0, CAT, *BOX)), found((0, CAT, *BOX, 0.2))) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_of_two_boxes_on_an_object_the_nearer_one_has_it_and_the_other_is_on_nothing():
    detections = found((0, CAT, 55, 50, 40, 40, 0.9), (0, CAT, *BOX, 0.5))
    assert matrix(truths((0, CAT, *BOX)), detections) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_of_equally_near_boxes_the_one_of_its_class_has_it():
    detections = found((0, DOG, *BOX, 0.9), (0, CAT, *BOX, 0.5))
    assert matrix(truths((0, CAT, *BOX)), detections) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_boxes_in_a_crowd_of_their_class_are_left_out():
    truth = truths((0, CAT, 0, 0, 100, 100), crowd=[0])
    assert matrix(truth, found((0, CAT, *BOX, 0.9), (0, DOG, *BOX, 0.9))) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_each_object_and_each_box_is_counted_once(seed):
    annotations, detections = random_case(seed)
    seen = outcomes(annotations, detections)
    table = confusion(seen, score=0.3)
    assert table.counts[:-1].sum(1).tolist() == annotations.counts().tolist()
    assert 0 <= (seen.scores >= 0.3).sum() - table.counts[:, :-1].sum() <= seen.ignored.sum()
    sums = table.shares().sum(1)
    assert np.allclose(sums[table.counts.sum(1) > 0], 1)


def test_the_worst_confusions_come_first_and_the_background_is_none():
    truth = truths((0, CAT, *BOX), (1, CAT, *BOX), (2, DOG, *BOX))
    detections = found((0, DOG, *BOX, 0.9), (1, DOG, *BOX, 0.9), (2, CAT, *BOX, 0.9), (2, CAT, 200, 0, 9, 9, 0.9))
    worst = confusion(outcomes(truth, detections)).worst(5)
    assert worst == [("cat", "dog", 2), ("dog", "cat", 1)]
