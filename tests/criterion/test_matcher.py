"""The matcher finds the cheapest pairs, in whatever order things come."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from detr.criterion.matcher import MatcherConfig, costs, match
from detr.criterion.truth import in_one_row
from detr.records import Predictions, Target


def boxes_of(count, generator):
    centre = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.35 + 0.05
    return torch.cat([centre, size], -1)


def scene(counts, *, num_queries=6, num_classes=4, num_heads=1, seed=0):
    """Random heads and targets; `counts` targets an image."""
    generator = torch.Generator().manual_seed(seed)
    heads = [
        Predictions(
            torch.randn(len(counts), num_queries, num_classes, generator=generator, dtype=torch.float64),
            torch.stack([boxes_of(num_queries, generator) for _ in counts]),
        )
        for _ in range(num_heads)
    ]
    targets = [
        Target(torch.randint(num_classes, (count,), generator=generator), boxes_of(count, generator))
        for count in counts
    ]
    return heads, targets


def row(targets):
    return in_one_row(targets, device=torch.device("cpu"), dtype=torch.float64)


def pairs_of(heads, targets):
    """Per head and image, the set of (query, target of that image)."""
    truth = row(targets)
    return [
        [
            {
                (query, target - truth.starts[image])
                for place, query, target in zip(*(t.tolist() for t in (p.images, p.queries, p.targets)), strict=True)
                if place == image
            }
            for image in range(len(targets))
        ]
        for p in match(heads, truth, MatcherConfig())
    ]


def plain_cost(logit, box, wanted):
    """The cost of one query and one target, number by number."""
    score = 1 / (1 + math.exp(-logit))
    said = 0.25 * (1 - score) ** 2 * -math.log(score + 1e-8)
    unsaid = 0.75 * score**2 * -math.log(1 - score + 1e-8)
    corners = [(b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2) for b in (box, wanted)]
    (a, b, c, d), (e, f, g, h) = corners
    overlap = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f))
    union = (c - a) * (d - b) + (g - e) * (h - f) - overlap
    enclosing = (max(c, g) - min(a, e)) * (max(d, h) - min(b, f))
    giou = overlap / union - (enclosing - union) / enclosing
    return 2 * (said - unsaid) + 5 * sum(abs(x - y) for x, y in zip(box, wanted, strict=True)) - 2 * giou


counts_of_a_batch = st.lists(st.integers(0, 12), min_size=1, max_size=3)


@settings(deadline=None, max_examples=25)
@given(counts=counts_of_a_batch, num_heads=st.integers(1, 3), seed=st.integers(0, 1000))
def test_matching_is_as_cheap_as_the_best_of_a_cost_made_by_two_loops(counts, num_heads, seed):
    heads, targets = scene(counts, num_heads=num_heads, seed=seed)
    for head, found in zip(heads, pairs_of(heads, targets), strict=True):
        for image, target in enumerate(targets):
            table = np.zeros((6, len(target.labels)))
            for query in range(6):
                for place in range(len(target.labels)):
                    table[query, place] = plain_cost(
                        head.logits[image, query, target.labels[place]].item(),
                        head.boxes[image, query].tolist(),
                        target.boxes[place].tolist(),
                    )
            best = table[linear_sum_assignment(table)].sum()
            assert sum(table[pair] for pair in found[image]) == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(counts=counts_of_a_batch, seed=st.integers(0, 1000))
def test_each_target_gets_one_query_or_each_query_one_target(counts, seed):
    heads, targets = scene(counts, seed=seed)
    for count, pairs in zip(counts, pairs_of(heads, targets)[0], strict=True):
        assert len(pairs) == min(count, 6)
        assert len({query for query, _ in pairs}) == len({target for _, target in pairs}) == len(pairs)


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 9), seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_matching_does_not_depend_on_the_order_of_queries_or_targets(count, seed, order):
    [head], [target] = scene([count], seed=seed)
    queries, places = list(range(6)), list(range(count))
    order.shuffle(queries)
    order.shuffle(places)
    shuffled = Predictions(head.logits[:, queries], head.boxes[:, queries])
    [[plain]] = pairs_of([head], [target])
    [[other]] = pairs_of([shuffled], [Target(target.labels[places], target.boxes[places])])
    assert {(queries[query], places[place]) for query, place in other} == plain


def test_pairs_come_by_image_then_by_query():
    heads, targets = scene([4, 0, 9, 1])
    [pairs] = match(heads, row(targets), MatcherConfig())
    assert pairs.images.tolist() == [0] * 4 + [2] * 6 + [3]
    for image in (0, 2):
        queries = pairs.queries[pairs.images == image].tolist()
        assert queries == sorted(queries)


def test_heads_may_have_different_numbers_of_queries():
    [few], targets = scene([3, 2], num_queries=4)
    [many], _ = scene([3, 2], num_queries=11, seed=1)
    together = pairs_of([few, many, few], targets)
    assert together == [pairs_of([few], targets)[0], pairs_of([many], targets)[0], pairs_of([few], targets)[0]]


def test_costs_are_computed_in_float32_from_half_precision():
    [head], targets = scene([3])
    half = Predictions(head.logits.bfloat16(), head.boxes.half())
    truth = in_one_row(targets, device=torch.device("cpu"), dtype=torch.float32)
    assert costs([half], truth, MatcherConfig()).dtype == torch.float32


def test_without_any_target_there_are_no_pairs():
    heads, targets = scene([0, 0], num_heads=2)
    for pairs in match(heads, row(targets), MatcherConfig()):
        assert len(pairs.images) == len(pairs.queries) == len(pairs.targets) == 0


def test_by_softmax_a_class_costs_its_probability_with_the_sign_turned():
    config = MatcherConfig(classification="softmax", class_cost=2, l1_cost=0, giou_cost=0)
    logits = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]], dtype=torch.float64).log()
    boxes = torch.full((1, 2, 4), 0.5, dtype=torch.float64)
    found = costs([Predictions(logits, boxes)], row([Target(torch.tensor([1, 0]), boxes[0])]), config)
    torch.testing.assert_close(found, torch.tensor([[-1.0, -0.6], [-0.4, -1.2]], dtype=torch.float64))


def test_from_its_epoch_on_a_pair_costs_its_probability_times_the_power_of_its_overlap():
    """Of two queries one has the target's box, and one a box of which half overlaps: an IoU of a third."""
    config = MatcherConfig(by_overlap_from=3, overlap_power=2)
    logits = torch.tensor([[[0.8], [0.5]]], dtype=torch.float64).logit()
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, 0.2, 0.2]]], dtype=torch.float64)
    heads, truth = [Predictions(logits, boxes)], row([Target(torch.tensor([0]), boxes[0, :1])])
    expected = torch.tensor([[-0.8, -0.5 / 9]], dtype=torch.float64)
    for epoch in (3, 4):
        torch.testing.assert_close(costs(heads, truth, config, epoch=epoch), expected)
    before = costs(heads, truth, config, epoch=2)
    assert torch.equal(before, costs(heads, truth, MatcherConfig())) and not torch.allclose(before, expected)
