import pytest
import torch

from detr.models.postprocess import Scoring, select
from detr.records import Output, Predictions


def output(probabilities, boxes):
    logits = torch.tensor(probabilities).logit()
    return Output((Predictions(logits, torch.tensor(boxes).expand(len(logits), -1, -1)),))


ONE = output([[[0.9, 0.2], [0.6, 0.7]]], [[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.4, 0.2]])


def test_pairs_of_query_and_class_come_best_first_in_pixels():
    (found,) = select(ONE, [(100, 200)])
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.6, 0.2]))
    assert found.labels.tolist() == [0, 1, 0, 1]
    first, second = torch.tensor([[80.0, 30, 120, 70], [-20, 0, 60, 20]])
    torch.testing.assert_close(found.boxes, torch.stack([first, second, second, first]))


def test_each_image_has_its_own_size():
    two = output([[[0.9, 0.2]], [[0.3, 0.4]]], [[0.5, 0.5, 1.0, 1.0]])
    found = select(two, [(10, 20), (30, 40)])
    assert found[0].boxes[0].tolist() == [0, 0, 20, 10]
    assert found[1].boxes[0].tolist() == [0, 0, 40, 30]
    assert found[1].labels.tolist() == [1, 0]


def test_scores_below_the_threshold_are_left_out():
    (found,) = select(ONE, [(100, 200)], conf=0.65)
    assert found.labels.tolist() == [0, 1]
    (none,) = select(ONE, [(100, 200)], conf=0.95)
    assert len(none) == 0 and none.boxes.shape == (0, 4)


def test_at_most_so_many():
    assert len(select(ONE, [(100, 200)], max_det=3)[0]) == 3
    assert len(select(ONE, [(100, 200)], max_det=100)[0]) == 4


def test_only_the_chosen_classes_compete():
    (found,) = select(ONE, [(100, 200)], max_det=1, classes=[1])
    assert found.labels.tolist() == [1] and found.scores.item() == pytest.approx(0.7)
    assert len(select(ONE, [(100, 200)], classes=[1])[0]) == 2
    assert len(select(ONE, [(100, 200)], classes=[])[0]) == 0


def test_a_score_that_is_the_threshold_is_kept():
    (found,) = select(ONE, [(100, 200)])
    (kept,) = select(ONE, [(100, 200)], conf=found.scores[1].item())
    assert kept.labels.tolist() == [0, 1]


def test_an_exclusive_query_says_its_best_class_and_never_that_there_is_no_object():
    logits = torch.tensor([[[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], [[0.6, 0.3, 0.1], [0.3, 0.3, 0.4]]]).log()
    two = Output((Predictions(logits, torch.rand(2, 2, 4)),))
    first, second = select(two, [(10, 10)] * 2, scoring=Scoring(exclusive=True))
    torch.testing.assert_close(first.scores, torch.tensor([0.5, 0.2]))
    torch.testing.assert_close(second.scores, torch.tensor([0.6, 0.3]))
    assert first.labels.tolist() == [1, 1] and second.labels[0] == 0
    (only, _) = select(two, [(10, 10)] * 2, scoring=Scoring(exclusive=True), classes=[0])
    assert len(only) == 0  # both queries of the first image say class 1


def test_slots_say_which_logit_belongs_to_which_class():
    slotted = output([[[0.9, 0.2, 0.4, 0.7]]], [[0.5, 0.5, 0.2, 0.4]])
    (found,) = select(slotted, [(10, 10)], scoring=Scoring(slots=(3, 1)))
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.2]))
    assert found.labels.tolist() == [0, 1]


def test_unless_asked_otherwise_there_are_300_at_most():
    many = Output((Predictions(torch.randn(1, 20, 80), torch.rand(1, 20, 4)),))
    assert len(select(many, [(10, 10)])[0]) == 300
