import math

import pytest
import torch

from detr.criterion import CriterionConfig, MatcherConfig
from detr.criterion.teaching import Teaching, TeachingConfig, soft_cross_entropy
from detr.records import Output, Predictions

BOXES = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.4]]])
SURE = torch.tensor([[[4.0, -4.0], [-4.0, -3.0]]])  # the first query of class 0, the second of nothing


def teaching(matches=None, slots=(0, 1), teachers_slots=(0, 1), **settings):
    matches = {0: 0, 1: 1} if matches is None else matches
    return Teaching(TeachingConfig(**settings), CriterionConfig(), matches, slots=slots, teachers_slots=teachers_slots)


def losses_of(part, output, answers, num_targets=1, *, epoch=0):
    return part(output, answers, part.sure(answers).numpy(), num_targets, epoch=epoch)


def taught(student, answers, *, num_targets=1, **settings):
    student = student if isinstance(student, tuple) else (student,)
    return losses_of(teaching(**settings), Output(student), answers, num_targets)


def test_a_student_that_says_the_same_has_nothing_to_learn():
    answers = Predictions(SURE, BOXES)
    losses = taught(Predictions(SURE.clone(), BOXES.clone()), answers)
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(
        {"loss_teacher_class": 0, "loss_teacher_bbox": 0, "loss_teacher_giou": 0}, abs=1e-6
    )


def test_queries_are_matched_whatever_their_order():
    student = Predictions(SURE.flip(1), BOXES.flip(1))
    assert float(sum(taught(student, Predictions(SURE, BOXES)).values())) == pytest.approx(0, abs=1e-6)


def test_boxes_are_drawn_by_the_weights_of_the_criterion_and_the_teachers_score():
    """The first box lies 0.1 beside the teacher's; L1 weighs 5."""
    shifted = BOXES + torch.tensor([[[0.1, 0, 0, 0], [0, 0, 0, 0]]])
    losses = taught(Predictions(SURE, shifted), Predictions(SURE, BOXES))
    score = 1 / (1 + math.exp(-4))
    assert float(losses["loss_teacher_bbox"]) == pytest.approx(5 * score * 0.1, rel=1e-5)
    halved = taught(Predictions(SURE, shifted), Predictions(SURE, BOXES), num_targets=4, weight=2.0)
    assert float(halved["loss_teacher_bbox"]) == pytest.approx(5 * score * 0.1 / 2, rel=1e-5)


def test_every_decoder_layer_is_taught():
    shifted = Predictions(SURE, BOXES + torch.tensor([0.1, 0, 0, 0]))
    once, twice = (taught((shifted,) * count, Predictions(SURE, BOXES)) for count in (1, 2))
    for name in once:
        assert float(twice[name]) == pytest.approx(2 * float(once[name]))


def test_start_boxes_and_proposals_are_not_taught():
    shifted = Predictions(SURE, BOXES + torch.tensor([0.1, 0, 0, 0]))
    alone = losses_of(teaching(), Output((shifted,)), Predictions(SURE, BOXES))
    beside = losses_of(teaching(), Output((shifted,), shifted, start=shifted), Predictions(SURE, BOXES))
    assert {name: float(value) for name, value in beside.items()} == {name: float(alone[name]) for name in alone}


def test_from_an_epoch_on_teachers_boxes_are_matched_by_overlap_too():
    """Query 0 is surer, query 1 is where the teacher's box is."""
    student = Predictions(torch.tensor([[[4.0], [0.0]]]), torch.tensor([[[0.56, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]]))
    answers = Predictions(torch.tensor([[[4.0]]]), student.boxes[:, 1:])
    criterion = CriterionConfig(matcher=MatcherConfig(by_overlap_from=3, class_cost=20))
    part = Teaching(TeachingConfig(), criterion, {0: 0}, slots=[0], teachers_slots=[0])
    apart = [float(losses_of(part, Output((student,)), answers, epoch=each)["loss_teacher_bbox"]) for each in (2, 3)]
    assert apart[0] > 0.1 and apart[1] == 0


def test_a_teacher_is_listened_to_from_conf_on():
    half = Predictions(torch.zeros(1, 1, 2), BOXES[:, :1])
    shifted = Predictions(torch.zeros(1, 1, 2), BOXES[:, :1] + torch.tensor([0.1, 0, 0, 0]))
    assert float(taught(shifted, half, conf=0.5)["loss_teacher_bbox"]) == pytest.approx(5 * 0.5 * 0.1, rel=1e-5)
    assert float(taught(shifted, half, conf=0.501)["loss_teacher_bbox"]) == 0


@pytest.mark.parametrize("num_images", [1, 2])
def test_an_unsure_teacher_says_nothing_but_leaves_a_graph(num_images):
    answers = Predictions(torch.full((num_images, 2, 2), -5.0), BOXES.expand(num_images, -1, -1))
    logits = torch.zeros(num_images, 3, 2, requires_grad=True)
    boxes = torch.full((num_images, 3, 4), 0.5, requires_grad=True)
    total = sum(taught(Predictions(logits, boxes), answers).values())
    total.backward()
    assert float(total.detach()) == 0 and not logits.grad.any() and not boxes.grad.any()


def test_classes_are_those_that_both_know_wherever_their_logits_lie():
    """Our class 1 is the teacher's class 0; its logit lies in slot 2 there and in slot 3 here."""
    answers = torch.full((1, 1, 3), 5.0)
    answers[..., 2] = 2.0  # what isn't shared is not listened to
    student = torch.zeros(1, 2, 4, requires_grad=True)
    boxes = BOXES.clone().requires_grad_()
    losses = taught(
        Predictions(student, boxes), Predictions(answers, BOXES[:, :1]),
        matches={1: 0}, slots=(0, 3), teachers_slots=(2, 0),
    )  # fmt: skip
    sum(losses.values()).backward()
    assert student.grad[0, 0, 3] != 0 and student.grad.count_nonzero() == 1
    score = torch.tensor(2.0).sigmoid()
    assert float(student.grad[0, 0, 3]) == pytest.approx(float(score * (0.5 - score)), rel=1e-5)


def test_soft_cross_entropy_is_the_divergence_of_the_probabilities():
    """From p = 0.5 to q = 0.8: 0.8 log(0.8 / 0.5) + 0.2 log(0.2 / 0.5)."""
    teachers = torch.tensor([[math.log(4.0)]])
    expected = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert float(soft_cross_entropy(torch.zeros(1, 1), teachers)) == pytest.approx(expected, rel=1e-5)


def test_a_temperature_softens_both():
    """Logits 4 log 4 and 4 log 1.5 are log 4 and log 1.5 at temperature 4: q = 0.8 from p = 0.6, times 16."""
    teachers, student = torch.tensor([[4 * math.log(4)]]), torch.tensor([[4 * math.log(1.5)]])
    expected = 16 * (0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4))
    assert float(soft_cross_entropy(student, teachers, 4.0)) == pytest.approx(expected, rel=1e-5)
    losses = taught(Predictions(student[None], BOXES[:, :1]), Predictions(teachers[None], BOXES[:, :1]),
                    matches={0: 0}, slots=[0], teachers_slots=[0], temperature=4.0)  # fmt: skip
    score = 4**4 / (4**4 + 1)
    assert float(losses["loss_teacher_class"]) == pytest.approx(score * expected, rel=1e-5)


def test_a_temperature_leaves_small_gradients_as_large():
    grads = []
    for temperature in (1.0, 4.0):
        logits = torch.tensor([[0.01]], requires_grad=True)
        soft_cross_entropy(logits, torch.zeros(1, 1), temperature).sum().backward()
        grads.append(float(logits.grad))
    assert grads[0] == pytest.approx(grads[1], rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_student_whose_numbers_broke_is_taught_as_if_these_were_zero(value):
    broken = Predictions(torch.full_like(SURE, value), torch.full_like(BOXES, value))
    zero = Predictions(torch.zeros_like(SURE), torch.zeros_like(BOXES))
    losses, expected = (taught(student, Predictions(SURE, BOXES)) for student in (broken, zero))
    assert len(losses) == 3
    assert {name: float(loss) for name, loss in losses.items()} == {name: float(expected[name]) for name in expected}


def test_pieces_of_a_batch_by_their_shares_cost_as_much_as_the_whole():
    """Of 4 targets one piece has 3 and the other 1, whatever the teacher sees in them."""
    torch.manual_seed(0)
    student = [Predictions(torch.randn(1, 3, 2), torch.rand(1, 3, 4) * 0.4 + 0.3) for _ in range(2)]
    answers = [Predictions(torch.randn(1, 2, 2) + 1, torch.rand(1, 2, 4) * 0.4 + 0.3) for _ in range(2)]
    both = [Predictions(torch.cat([a.logits, b.logits]), torch.cat([a.boxes, b.boxes])) for a, b in (student, answers)]
    whole = taught(both[0], both[1], num_targets=4)
    first, second = taught(student[0], answers[0], num_targets=3), taught(student[1], answers[1], num_targets=1)
    for name, value in whole.items():
        assert float(value) == pytest.approx(0.75 * float(first[name]) + 0.25 * float(second[name]), rel=1e-5)
        assert float(value) > 0
