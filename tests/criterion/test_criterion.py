"""The criterion: official names, one normaliser, one transfer, and a clear word on whatever is broken."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from detr.criterion import Criterion, CriterionConfig, MatcherConfig, criterion_for
from detr.criterion import criterion as criterion_file
from detr.errors import InputError, UsageError
from detr.records import Denoising, Output, Predictions, Target


def predictions(batch, num_queries, num_classes=5, dtype=torch.float32):
    logits = torch.randn(batch, num_queries, num_classes, dtype=dtype).requires_grad_()
    boxes = (torch.rand(batch, num_queries, 4, dtype=dtype) * 0.4 + 0.3).requires_grad_()
    return Predictions(logits, boxes)


def target(count, image_id=0, num_classes=5):
    return Target(torch.randint(num_classes, (count,)), torch.rand(count, 4) * 0.4 + 0.3, image_id)


def noised(counts, groups=2, num_layers=2):
    """Denoising queries as networks make them: a group has as many positives as the fullest image has targets."""
    most = max(counts)
    queries = [torch.tensor([g * 2 * most + i for g in range(groups) for i in range(n)]) for n in counts]
    targets = [torch.arange(n).repeat(groups) for n in counts]
    layers = tuple(predictions(len(counts), groups * 2 * most) for _ in range(num_layers))
    return Denoising(layers, tuple(q.long() for q in queries), tuple(targets), groups)


def whole_output(counts, *, num_queries=7, num_layers=3):
    return Output(
        tuple(predictions(len(counts), num_queries) for _ in range(num_layers)),
        predictions(len(counts), num_queries),
        noised(counts) if max(counts) else None,
    )


def tensors_of(output):
    heads = [*output.layers, output.proposals, *(output.denoising.layers if output.denoising else ())]
    return [part for head in heads for part in (head.logits, head.boxes)]


def suffixes(losses):
    assert {name.split("_")[1] for name in losses} == {"vfl", "bbox", "giou"}
    return [name.removeprefix("loss_vfl") for name in losses if name.startswith("loss_vfl")]


def test_losses_have_the_official_names_of_each_version():
    output, targets = whole_output([2, 1]), [target(2), target(1)]
    first = criterion_for(network(version=1))(output, targets)
    second = criterion_for(network(version=2))(output, targets)
    assert suffixes(first) == ["", "_aux_0", "_aux_1", "_aux_2", "_dn_0", "_dn_1"]
    assert suffixes(second) == ["", "_aux_0", "_aux_1", "_enc_0", "_dn_0", "_dn_1"]
    assert [value.item() for value in first.values()] == [value.item() for value in second.values()]


def network(**config):
    result = nn.Module()
    result.config = SimpleNamespace(**({"arch": "rtdetr", "version": 1} | config))
    result.slots = tuple(range(5))
    result.scoring = SimpleNamespace(exclusive=False)
    return result


def test_a_network_of_unknown_kind_has_no_criterion():
    with pytest.raises(UsageError, match="arch 'yolo'"):
        criterion_for(network(arch="yolo"))


def test_losses_of_one_query_and_one_target_by_hand():
    """One query of two classes; its box overlaps half of the target's."""
    head = Predictions(torch.tensor([[[math.log(3), 0.0]]]), torch.tensor([[[0.6, 0.5, 0.2, 0.2]]]))
    losses = Criterion()(Output((head,)), [Target(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))])
    matched = -(1 / 3) * (1 / 3 * math.log(0.75) + 2 / 3 * math.log(0.25))
    other = -0.75 * 0.5**2 * math.log(0.5)
    assert losses["loss_vfl"].item() == pytest.approx(matched + other, rel=1e-5)
    assert losses["loss_bbox"].item() == pytest.approx(5 * 0.1, rel=1e-5)
    assert losses["loss_giou"].item() == pytest.approx(2 * (1 - 1 / 3), rel=1e-5)


def test_a_query_far_from_every_target_is_still_told_what_it_is_not():
    head = Predictions(torch.zeros(1, 1, 2), torch.full((1, 1, 4), 0.5))
    losses = Criterion()(Output((head,)), [target(0)])
    assert losses["loss_vfl"].item() == pytest.approx(2 * -0.75 * 0.5**2 * math.log(0.5))
    assert losses["loss_bbox"].item() == losses["loss_giou"].item() == 0


def test_losses_are_divided_by_the_number_of_targets_and_for_denoising_by_groups_too():
    output, targets = whole_output([2, 1]), [target(2), target(1)]
    doubled = Output(
        tuple(twice(layer) for layer in output.layers),
        twice(output.proposals),
        Denoising(
            tuple(twice(layer) for layer in output.denoising.layers),
            output.denoising.queries * 2,
            output.denoising.targets * 2,
            output.denoising.num_groups,
        ),
    )
    once, again = Criterion()(output, targets), Criterion()(doubled, targets * 2)
    for name in once:
        assert again[name].item() == pytest.approx(once[name].item(), rel=1e-5)
    more_groups = Denoising(*(getattr(output.denoising, f) for f in ("layers", "queries", "targets")), num_groups=8)
    fourth = Criterion()(Output(output.layers, None, more_groups), targets)
    assert fourth["loss_bbox_dn_0"].item() == pytest.approx(once["loss_bbox_dn_0"].item() / 4, rel=1e-5)


def twice(head):
    return Predictions(torch.cat([head.logits, head.logits]), torch.cat([head.boxes, head.boxes]))


def test_weights_scale_their_losses():
    output, targets = whole_output([2]), [target(2)]
    plain = Criterion()(output, targets)
    weighted = Criterion(CriterionConfig(class_weight=3, l1_weight=10, giou_weight=0))(output, targets)
    assert weighted["loss_vfl"].item() == pytest.approx(3 * plain["loss_vfl"].item())
    assert weighted["loss_bbox"].item() == pytest.approx(2 * plain["loss_bbox"].item())
    assert weighted["loss_giou"].item() == 0


def test_focal_classification_is_a_choice():
    losses = Criterion(CriterionConfig(classification="focal", alpha=0.25))(whole_output([2]), [target(2)])
    assert {"loss_focal", "loss_focal_aux_0", "loss_focal_dn_0"} < set(losses)


def test_the_match_follows_its_own_costs():
    """With only the class cost, the query that says the class wins, wherever its box is."""
    head = Predictions(torch.tensor([[[-3.0], [3.0]]]), torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]]))
    wanted = [Target(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))]
    by_box = Criterion()(Output((head,)), wanted)
    by_class = Criterion(CriterionConfig(matcher=MatcherConfig(l1_cost=0, giou_cost=0)))(Output((head,)), wanted)
    assert by_box["loss_bbox"].item() == 0
    assert by_class["loss_bbox"].item() == pytest.approx(5 * 1.0)


@pytest.mark.filterwarnings("ignore:image 0 has")
@settings(deadline=None, max_examples=20)
@given(
    counts=st.lists(st.integers(0, 14), min_size=1, max_size=3), classification=st.sampled_from(["varifocal", "focal"])
)
def test_losses_and_gradients_are_finite_and_reach_every_head_for_0_to_2q_targets(counts, classification):
    output = whole_output(counts)
    losses = Criterion(CriterionConfig(classification=classification))(output, [target(count) for count in counts])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    for part in tensors_of(output):
        assert part.grad is not None, "a part that no loss depends on makes DistributedDataParallel wait for ever"
        assert part.grad.isfinite().all()


def test_empty_boxes_at_one_point_give_finite_losses():
    head = Predictions(torch.zeros(1, 1, 3), torch.tensor([[[0.5, 0.5, 0.0, 0.0]]], requires_grad=True))
    losses = Criterion()(Output((head,)), [Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.0, 0.0]]))])
    total = sum(losses.values())
    total.backward()
    assert total.isfinite() and head.boxes.grad.isfinite().all()


@pytest.mark.filterwarnings("error")
def test_more_targets_than_queries_are_said_once_with_their_numbers():
    criterion, output = Criterion(), Output((predictions(2, 4),))
    targets = [target(1, "a.jpg"), target(9, "b.jpg")]
    with pytest.warns(UserWarning, match=r"image 'b.jpg' has 9 targets for 4 queries: 5 find none"):
        criterion(output, targets)
    criterion(output, targets)


def test_losses_are_float32_whatever_the_network_computed_in_and_float64_stays():
    counts = [2, 1]
    targets = [target(count) for count in counts]
    output = whole_output(counts)
    exact = Criterion()(output, targets)
    half = Output(tuple(Predictions(p.logits.bfloat16(), p.boxes) for p in output.layers))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = Criterion()(half, targets)
        same = Criterion()(output, targets)
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05)
    assert [value.item() for value in same.values()] == [value.item() for value in exact.values()]
    double = Output((predictions(2, 4, dtype=torch.float64),))
    assert all(value.dtype == torch.float64 for value in Criterion()(double, targets).values())


class NoWaiting(TorchDispatchMode):
    """Refuses the operations that would make the host wait for the device."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not any(function.name().startswith(f"aten::{name}") for name in self.WAITING), function.name()
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("counts", [[3, 0, 2], [0, 0, 0]])
def test_a_step_reads_from_the_device_once(monkeypatch, counts):
    transfers = []
    read = criterion_file._to_host
    monkeypatch.setattr(criterion_file, "_to_host", lambda *tensors: transfers.append(1) or read(*tensors))
    output, targets = whole_output(counts), [target(count) for count in counts]
    with NoWaiting():
        losses = Criterion()(output, targets)
        sum(losses.values()).backward()
    assert len(transfers) == 1


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (("layers", 2, "logits"), "the logits of the last decoder layer"),
        (("layers", 0, "boxes"), "the boxes of decoder layer 0"),
        (("proposals", "logits"), "the logits of the encoder's proposals"),
        (("denoising", 1, "boxes"), "the boxes of denoising decoder layer 1"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("version", [1, 2])
def test_a_broken_prediction_is_named_by_head_and_image(place, words, value, version):
    output = whole_output([2, 1])
    kind, *number, part = place
    head = getattr(output, kind)
    if kind == "denoising":
        head = head.layers
    head = head[number[0]] if number else head
    with torch.no_grad():
        getattr(head, part)[1, 0, 0] = value
    with pytest.raises(FloatingPointError, match=f"{words} are not finite .* for image 'b.jpg'"):
        criterion_for(network(version=version))(output, [target(2, "a.jpg"), target(1, "b.jpg")])


@pytest.mark.parametrize(
    ("labels", "boxes", "message"),
    [
        ([0, 5], [[0.5] * 4] * 2, r"target 1 of image 'b.jpg': label 5 is not in 0..4"),
        ([-1], [[0.5] * 4], r"target 0 of image 'b.jpg': label -1 is not in 0..4"),
        ([0], [[320.0, 240.0, 60.0, 80.0]], r"\[320.0, 240.0, 60.0, 80.0\] is not .* in \[0, 1\]"),
        ([0], [[1 / 3, 0.5, 0.1, 1.0011]], r"box \[0.3333, 0.5, 0.1, 1.0011\] is not centre, width and height"),
        ([0], [[0.5, 0.5, -0.1, 0.2]], "is not centre, width and height"),
        ([0], [[0.5, math.nan, 0.1, 0.2]], "is not centre, width and height"),
        ([0], [[0.5, math.inf, 0.1, 0.2]], "is not centre, width and height"),
        ([0, 1], [[0.5] * 4], "2 labels for 1 boxes"),
        ([0.0], [[0.5] * 4], "labels are torch.float32"),
        ([True], [[0.5] * 4], "labels are torch.bool"),
        ([[0]], [[0.5] * 4], r"labels are torch.int64 \[1, 1\]"),
        ([0], [0.5] * 4, r"boxes are torch.float32 \[4\]"),
        ([0], [[1, 0, 1, 1]], "boxes are torch.int64"),
        ([0], [[0.5] * 5], r"boxes are torch.float32 \[1, 5\]"),
    ],
)
def test_targets_that_cannot_be_right_are_refused_with_their_image(labels, boxes, message):
    wrong = Target(torch.tensor(labels), torch.tensor(boxes), "b.jpg")
    with pytest.raises(InputError, match=message):
        Criterion()(whole_output([2, 1]), [target(2, "a.jpg"), wrong])


@pytest.mark.parametrize("off", [1e-7, 0.0009])
def test_a_box_at_the_very_edge_may_be_off_by_rounding(off):
    edge = Target(torch.tensor([0]), torch.tensor([[0.5, -off, 1 + off, 1.0]]))
    assert all(value.isfinite() for value in Criterion()(Output((predictions(1, 3),)), [edge]).values())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_is_one_target_record_for_each_image(count):
    with pytest.raises(InputError, match=f"{count} targets for 2 images"):
        Criterion()(Output((predictions(2, 3),)), [target(1)] * count)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(InputError, match="a batch of targets is empty"):
        Criterion()(Output((predictions(0, 3),)), [])


def test_labels_of_any_whole_type_will_do():
    head, boxes = predictions(1, 3), torch.full((1, 4), 0.5)
    values = [
        Criterion()(Output((head,)), [Target(torch.tensor([2], dtype=dtype), boxes)])["loss_vfl"].item()
        for dtype in (torch.int64, torch.int32, torch.uint8)
    ]
    assert values[0] == values[1] == values[2]
