import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.boxes import cxcywh_to_xyxy
from detr.models.denoising import ContrastiveDenoising
from detr.records import Target


def module(**changes):
    settings = {"num_denoising": 8, "label_noise": 0.5, "box_noise": 1.0} | changes
    return ContrastiveDenoising(4, 10, **settings)


def target(count):
    return Target(torch.randint(0, 10, (count,)), torch.rand(count, 4) * 0.3 + 0.3)


def test_queries_come_in_groups_of_positives_and_negatives():
    noised = module().noise([target(2), target(1)])
    assert noised.num_groups == 4 and noised.labels.shape == (2, 4 * 2 * 2)
    assert noised.queries[0].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert noised.targets[0].tolist() == [0, 1] * 4
    assert noised.queries[1].tolist() == [0, 4, 8, 12]
    assert noised.targets[1].tolist() == [0] * 4


def test_groups_see_themselves_and_what_is_matched():
    """8 groups of a positive and a negative copy; 3 queries that are matched."""
    _, _, mask, noised = module()([target(1), target(0)], num_matching=3)
    assert noised.num_groups == 8 and mask.shape == (19, 19)
    assert torch.equal(mask[:16, :16], torch.block_diag(*[torch.ones(2, 2)] * 8).bool())
    assert mask[:, 16:].all() and not mask[16:, :16].any()


def test_without_noise_every_query_is_its_target():
    some = [target(3), target(1)]
    noised = module(label_noise=0.0, box_noise=0.0).noise(some)
    for image, each in enumerate(some):
        torch.testing.assert_close(noised.labels[image, noised.queries[image]], each.labels[noised.targets[image]])
        boxes = noised.boxes[image, noised.queries[image]].sigmoid()
        torch.testing.assert_close(boxes, each.boxes[noised.targets[image]])


def test_places_without_a_target_hold_no_class():
    noised = module(label_noise=1.0).noise([target(3), target(1)])
    assert (noised.labels[1].view(-1, 3)[:, 1:] == 10).all()
    assert (noised.labels[0] < 10).all()


def test_half_of_the_label_noise_changes_labels():
    noised = module(num_denoising=4000, label_noise=0.5).noise([Target(torch.tensor([3]), torch.rand(1, 4))])
    changed = (noised.labels != 3).double().mean()
    assert changed == pytest.approx(0.25 * 0.9, abs=0.03)  # a tenth of the new labels is the old one


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_positive_corners_move_less_than_half_a_side_and_negative_ones_more(seed):
    torch.manual_seed(seed)
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.1]).expand(1, 6, 4)
    negative = torch.tensor([False, True] * 3)[:, None]
    moved = module()._moved(boxes, negative)
    sides = (cxcywh_to_xyxy(moved) - cxcywh_to_xyxy(boxes)).abs() / torch.tensor([0.2, 0.1, 0.2, 0.1])
    assert (sides[:, ::2] <= 0.5 + 1e-5).all()
    assert (sides[:, 1::2] >= 0.5 - 1e-5).all() and (sides[:, 1::2] <= 1 + 1e-5).all()


def test_more_targets_than_denoising_queries_make_one_group():
    noised = module().noise([target(20)])
    assert noised.num_groups == 1 and noised.labels.shape == (1, 40)


@pytest.mark.parametrize("targets", [[], [target(0)], [target(0), target(0)]])
def test_without_targets_there_is_nothing_to_denoise(targets):
    assert module()(targets, num_matching=5) is None


def test_unused_parameters_still_belong_to_the_graph():
    denoising = module()
    denoising.unused().backward()
    assert (denoising.class_embedding.weight.grad == 0).all()


def test_the_content_of_no_class_is_zero_and_the_mask_covers_all_queries():
    content, boxes, mask, noised = module(num_denoising=1)([target(2), target(1)], num_matching=3)
    assert content.shape == (2, 4, 4) and boxes.shape == (2, 4, 4) and mask.shape == (7, 7)
    assert (content[1, 1] == 0).all() and noised.labels[1, 1] == 10


@pytest.mark.parametrize("filled", [False, True])
def test_filled_places_have_no_content_whatever_the_embedding_of_no_class_is(filled):
    denoising = module(num_denoising=1, filled=filled)
    torch.nn.init.constant_(denoising.class_embedding.weight, 7.0)  # as in official files
    content, *_, noised = denoising([target(2), target(1)], num_matching=3)
    empty = noised.labels == 10
    assert (content[empty] == (0 if filled else 7)).all() and (content[~empty] == 7).all()


def test_less_box_noise_moves_corners_less():
    some = [Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.1]]))]
    noised = module(num_denoising=200, box_noise=0.4).noise(some)
    boxes = noised.boxes[0].sigmoid().view(200, 2, 4)
    moved = cxcywh_to_xyxy(boxes) - cxcywh_to_xyxy(some[0].boxes)
    sides = moved.abs() / torch.tensor([0.2, 0.1, 0.2, 0.1])
    assert 0.19 < sides[:, 0].max() <= 0.2 + 1e-4  # 0.4 of half a side; negative copies from there to 0.4 of a side
    assert sides[:, 1].min() >= 0.2 - 1e-4 and 0.39 < sides[:, 1].max() <= 0.4 + 1e-4
    assert (moved[:, 0] > 0).any() and (moved[:, 0] < 0).any()


def test_boxes_that_turned_inside_out_have_no_size_or_are_turned_back():
    some = [Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))]
    torch.manual_seed(0)
    empty = module(num_denoising=200).noise(some).boxes.sigmoid()
    torch.manual_seed(0)
    turned = module(num_denoising=200, turned=True).noise(some).boxes.sigmoid()
    without_size = empty[..., 2:] < 1e-4
    assert without_size.any() and (turned[..., 2:] >= 1e-4).all()
    torch.testing.assert_close(turned[..., 2:][~without_size], empty[..., 2:][~without_size])
    torch.testing.assert_close(turned[..., :2], empty[..., :2])


def test_places_without_a_target_lie_in_the_corner_or_in_the_middle():
    for filled, box in ((False, [0, 0, 0, 0]), (True, [0.5, 0.5, 0.5, 0.5])):
        noised = module(filled=filled).noise([target(3), target(1)])
        empty = noised.labels == 10
        assert empty.sum() == 2 * 2 * 2  # 2 of 3 places, positive and negative, in 2 groups
        boxes = noised.boxes[empty].sigmoid()
        torch.testing.assert_close(boxes, torch.tensor(box).expand_as(boxes).float(), rtol=0, atol=1e-4)


def test_labels_become_the_slots_of_their_classes():
    noised = module(label_noise=0.0, slots=(1, 4, 9)).noise([Target(torch.tensor([2, 0]), torch.rand(2, 4))])
    assert noised.labels[0, :4].tolist() == [9, 1, 9, 1]


def test_boxes_are_as_finite_as_eps_says():
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    for eps, logit in ((1e-5, 11.5129), (1e-3, 6.9078)):
        noised = module(box_noise=0.0, eps=eps).noise([Target(torch.tensor([0]), boxes)])
        assert noised.boxes.max().item() == pytest.approx(logit, abs=1e-3)
