"""The parts of a criterion: who is matched how, what sums are divided by, and what edges learn."""

import math
from dataclasses import replace

import pytest
import torch

from detr.boxes import cxcywh_to_xyxy, iou
from detr.criterion import Criterion, CriterionConfig, MatcherConfig
from detr.criterion.fine_grained import distillation
from detr.errors import InputError, UsageError
from detr.layers.edges import bin_positions, boxes_from_edges, expected_moves
from detr.records import Edges, Output, Predictions, Target

DETR = CriterionConfig(classification="cross_entropy", matcher=MatcherConfig(classification="softmax", class_cost=1.0))
FINE = CriterionConfig(fgl_weight=0.15, ddf_weight=1.5)


def boxes(*shape):
    return torch.rand(*shape, 4, dtype=torch.float64) * 0.4 + 0.3


def predictions(batch=1, num_queries=4, num_slots=3, start=None):
    logits = torch.randn(batch, num_queries, num_slots, dtype=torch.float64)
    if start is None:
        return Predictions(logits, boxes(batch, num_queries))
    edges = torch.randn(batch, num_queries, 4, 33, dtype=torch.float64)
    moved = boxes_from_edges(expected_moves(edges, bin_positions()), start)
    return Predictions(logits, moved, Edges(edges, start))


def target(*labels):
    return Target(torch.tensor(labels, dtype=torch.int64), boxes(len(labels)))


def test_cross_entropy_is_the_mean_by_weight_whatever_the_number_of_targets():
    head = Predictions(torch.zeros(1, 4, 3, dtype=torch.float64), boxes(1, 4))
    for labels in ((), (0,), (0, 1), (0, 1, 0, 1)):
        losses = Criterion(DETR)(Output((head,)), [target(*labels)])
        assert losses["loss_ce"].item() == pytest.approx(math.log(3))


def test_cross_entropy_by_hand():
    """Two queries; the first answers for a target of class 1, the other is to say no object."""
    logits = torch.tensor([[[0.0, math.log(6), 0.0], [math.log(2), 0.0, 0.0]]], dtype=torch.float64)
    places = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]], dtype=torch.float64)
    losses = Criterion(DETR)(Output((Predictions(logits, places),)), [Target(torch.tensor([1]), places[0, :1])])
    assert losses["loss_ce"].item() == pytest.approx((-math.log(6 / 8) - 0.1 * math.log(1 / 4)) / 1.1)


def test_the_softmax_class_cost_is_the_probability():
    """Query 1 says the class with a smaller logit but surer, as its other logits are smaller still."""
    logits = torch.tensor([[[3.0, 3.0, 3.0], [1.0, -9.0, -9.0]]], dtype=torch.float64)
    same = torch.full((1, 2, 4), 0.4, dtype=torch.float64)
    wanted = [Target(torch.tensor([0]), same[0, :1])]
    by_softmax = Criterion(DETR).matched(Output((Predictions(logits, same),)), wanted)[1]
    by_sigmoid = Criterion().matched(Output((Predictions(logits, same),)), wanted)[1]
    assert by_softmax.queries.tolist() == [1] and by_sigmoid.queries.tolist() == [0]


@pytest.mark.parametrize(
    ("classification", "weight"), [("varifocal", 0.4 / 8), ("focal", 0.6 / 8), ("mal", 1 / 8), ("cross_entropy", 1)]
)
def test_alpha_and_gamma_are_those_of_the_recipe(classification, weight):
    """A query that answers for nothing and says 0.5 of each of two classes, or of one and of no object."""
    config = CriterionConfig(classification=classification, alpha=0.4, gamma=3)
    head = Predictions(torch.zeros(1, 1, 2, dtype=torch.float64), boxes(1, 1))
    losses = Criterion(config)(Output((head,)), [target()])
    value = next(value for name, value in losses.items() if name not in ("loss_bbox", "loss_giou"))
    num_classes = 1 if classification == "cross_entropy" else 2
    assert value.item() == pytest.approx(num_classes * weight * math.log(2))


def test_labels_are_looked_for_in_their_slots():
    """Three classes in a head of ten rows."""
    output = Output((predictions(num_slots=10),))
    wanted = target(0, 2)
    in_slots = Criterion(slots=(1, 4, 9))(output, [wanted])
    as_they_are = Criterion()(output, [replace(wanted, labels=torch.tensor([1, 9]))])
    assert {name: value.item() for name, value in in_slots.items()} == {
        name: value.item() for name, value in as_they_are.items()
    }


def test_a_label_beyond_the_classes_is_refused_though_there_is_a_slot():
    with pytest.raises(InputError, match=r"label 3 is not in 0\.\.2"):
        Criterion(slots=(1, 4, 9))(Output((predictions(num_slots=10),)), [target(3)])


def test_proposals_of_one_class_are_matched_and_told_about_the_first_slot_only():
    layer, proposals = predictions(num_slots=10), predictions(num_slots=10, num_queries=30)
    wanted = target(0, 2)
    losses = Criterion(slots=(1, 4, 9), one_class_proposals=True)(Output((layer,), proposals), [wanted])
    first = Criterion(slots=(0, 0, 0))(Output((layer,), proposals), [wanted])
    apart = Criterion(slots=(1, 4, 9))(Output((layer,), proposals), [wanted])
    for name, value in losses.items():
        assert value.item() == (first if name.endswith("_enc_0") else apart)[name].item()
    assert losses["loss_vfl_enc_0"].item() != apart["loss_vfl_enc_0"].item()


def test_from_an_epoch_on_the_surest_best_overlap_is_matched():
    """Query 0 is nearer in all costs together, query 1 overlaps more."""
    config = CriterionConfig(matcher=MatcherConfig(by_overlap_from=3, class_cost=20))
    logits = torch.tensor([[[4.0], [0.0]]], dtype=torch.float64)
    places = torch.tensor([[[0.56, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]], dtype=torch.float64)
    wanted = [Target(torch.tensor([0]), places[0, 1:])]
    criterion = Criterion(config)
    found = []
    for criterion.epoch in (2, 3):
        losses = criterion(Output((Predictions(logits, places),)), wanted)
        found.append((criterion.matched(Output((Predictions(logits, places),)), wanted)[1].queries.item(), losses))
    assert [query for query, _ in found] == [0, 1]
    assert found[0][1]["loss_bbox"].item() > 0 == found[1][1]["loss_bbox"].item()


def test_with_the_union_boxes_of_all_heads_learn_all_pairs_and_classes_their_own():
    """Two layers match other queries; with the union both queries of both layers are drawn to the target."""
    places = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.54, 0.5, 0.2, 0.2]]], dtype=torch.float64)
    logits = torch.tensor([[[2.0], [-2.0]]], dtype=torch.float64)
    output = Output((Predictions(logits, places), Predictions(-logits, places)))
    wanted = [Target(torch.tensor([0]), places[0, :1])]
    config = CriterionConfig(matcher=MatcherConfig(class_cost=100))
    own = Criterion(config)(output, wanted)
    together = Criterion(config.model_copy(update={"union": True}))(output, wanted)
    assert own["loss_bbox"].item() == pytest.approx(5 * 0.04) and own["loss_bbox_aux_0"].item() == 0
    for name in ("loss_bbox", "loss_bbox_aux_0"):
        assert together[name].item() == pytest.approx(5 * 0.04 / 2), "divided by the number of pairs"
    for name in ("loss_vfl", "loss_vfl_aux_0"):
        assert together[name].item() == own[name].item()


@pytest.mark.parametrize(("scale", "up"), [(4.0, 0.5), (8.0, 0.25)])
@pytest.mark.parametrize("bin", [16, 20])  # the middle one: stays
def test_edges_that_say_the_box_exactly_have_no_loss(scale, up, bin):
    start = boxes(1, 2).requires_grad_()
    edges = torch.full((1, 2, 4, 33), -60.0, dtype=torch.float64)
    edges[..., bin] = 60.0
    moved = boxes_from_edges(expected_moves(edges, bin_positions(scale=scale, up=up)), start, scale=scale).detach()
    head = Predictions(torch.randn(1, 2, 3, dtype=torch.float64), moved, Edges(edges.requires_grad_(), start))
    criterion = Criterion(FINE, edge_scale=scale, edge_up=up)
    losses = criterion(Output((head,)), [Target(torch.tensor([0, 1]), moved[0])])
    assert losses["loss_fgl"].item() < 1e-9
    assert "loss_ddf" not in losses
    losses["loss_fgl"].backward()
    assert start.grad is None, "what a box starts from is not moved by what its edges learn"


def test_fgl_weighs_each_pair_by_its_overlap():
    start = boxes(1, 1)
    edges = torch.zeros(1, 1, 4, 33, dtype=torch.float64)
    head = Predictions(torch.zeros(1, 1, 3, dtype=torch.float64), start, Edges(edges, start))
    wanted = target(0)
    overlap = iou(cxcywh_to_xyxy(start[0]), cxcywh_to_xyxy(wanted.boxes))[0].item()
    losses = Criterion(FINE)(Output((head,)), [wanted])
    assert losses["loss_fgl"].item() == pytest.approx(0.15 * overlap * 4 * math.log(33))


def test_ddf_by_hand():
    """Of four queries one is matched: it weighs its overlap, the others what the last layer is sure of."""
    start = boxes(1, 4)
    layer, last = predictions(start=start), predictions(start=start)
    wanted = target(1)
    config = FINE.model_copy(update={"matcher": MatcherConfig(class_cost=0)})
    criterion = Criterion(config)
    losses = criterion(Output((layer, last)), [wanted])
    _, pairs = criterion.matched(Output((layer,)), [wanted])
    matched = pairs.queries.item()
    assert layer.edges and last.edges
    each = distillation(layer.edges.logits, last.edges.logits)[0].mean(-1)
    weights = last.logits[0].sigmoid().amax(-1)
    weights[matched] = iou(cxcywh_to_xyxy(layer.boxes[0, matched]), cxcywh_to_xyxy(wanted.boxes[0]))[0]
    own = (each * weights)[matched].item()
    others = ((each * weights).sum().item() - own) / 3
    expected = (own + math.sqrt(3) * others) / (1 + math.sqrt(3))
    assert losses["loss_ddf_aux_0"].item() == pytest.approx(1.5 * expected)


def test_the_last_layer_teaches_and_does_not_learn_from_the_others():
    start = boxes(2, 4)
    layer, last = (predictions(2, start=start) for _ in range(2))
    assert layer.edges and last.edges
    for head in (layer, last):
        head.edges.logits.requires_grad_()
    losses = Criterion(FINE)(Output((layer, last)), [target(1), target()])
    losses["loss_ddf_aux_0"].backward()
    assert layer.edges.logits.grad is not None and last.edges.logits.grad is None


def test_without_targets_edges_still_learn_from_the_last_layer():
    start = boxes(1, 4)
    losses = Criterion(FINE)(Output((predictions(start=start), predictions(start=start))), [target()])
    assert losses["loss_fgl"].item() == losses["loss_fgl_aux_0"].item() == 0
    assert losses["loss_ddf_aux_0"].item() > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_of_edges_that_broke_every_loss_is_still_there_when_poisoned_and_none_is_a_number(value):
    layer, last = (predictions(start=boxes(1, 4)) for _ in range(2))
    healthy = Criterion(FINE)(Output((layer, last)), [target(1)])
    for part in (last.boxes, last.edges.logits, last.edges.start, layer.edges.start):
        part[0, 0] = value
    losses = Criterion(FINE)(Output((layer, last)), [target(1)], poisoned=True)
    assert losses.keys() == healthy.keys()
    assert all(value.isfinite() for value in healthy.values()) and all(value.isnan() for value in losses.values())


def test_edge_losses_of_a_network_without_edges_are_refused():
    with pytest.raises(UsageError, match="fgl_weight"):
        Criterion(FINE)(Output((predictions(),)), [target(0)])
