"""The union of what all heads matched: each query with the target that most of them gave it."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.criterion.matcher import union


def pairs(*rows):
    """(image, query, target) of each pair -> [3, K]"""
    return np.array(rows, dtype=np.int64).reshape(-1, 3).T


def rows(found):
    return [tuple(column) for column in found.T.tolist()]


def test_all_pairs_are_in_it_once():
    first, second = pairs((0, 3, 0), (0, 5, 1)), pairs((0, 3, 0), (0, 7, 1))
    assert rows(union([first, second])) == [(0, 3, 0), (0, 5, 1), (0, 7, 1)]


def test_a_query_keeps_the_target_that_most_heads_gave_it():
    heads = [pairs((0, 3, 1)), pairs((0, 3, 0)), pairs((0, 3, 1))]
    assert rows(union(heads)) == [(0, 3, 1)]


def test_of_targets_given_equally_often_the_first_counts():
    assert rows(union([pairs((0, 3, 2)), pairs((0, 3, 1))])) == [(0, 3, 1)]


def test_images_are_apart():
    heads = [pairs((0, 3, 0), (1, 3, 4)), pairs((1, 3, 4), (1, 2, 5))]
    assert rows(union(heads)) == [(0, 3, 0), (1, 2, 5), (1, 3, 4)]


def test_without_any_pair_it_is_empty():
    assert union([pairs(), pairs()]).shape == (3, 0)


one_head = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 3)), max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(one_head, min_size=1, max_size=4))
def test_it_is_what_counting_one_by_one_gives(heads):
    counts = Counter(row for head in heads for row in head)
    best: dict[tuple[int, int], int] = {}
    for image, query, target in sorted(counts, key=lambda row: (-counts[row], row)):
        best.setdefault((image, query), target)
    expected = [(*place, best[place]) for place in sorted(best)]
    assert rows(union([pairs(*head) for head in heads])) == expected
