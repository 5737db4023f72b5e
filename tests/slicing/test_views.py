from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr.errors import UsageError
from detr.slicing import Slicing, View, views_of

sides = st.integers(1, 900)
tiles = st.integers(32, 300)
overlaps = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.33, 0.5, 0.8])


@settings(deadline=None, max_examples=60)
@given(height=sides, width=sides, tall=tiles, wide=tiles, overlap=overlaps)
def test_tiles_cover_every_pixel_and_lie_in_the_picture(height, width, tall, wide, overlap):
    views = views_of(height, width, Slicing(tall, wide, overlap=overlap, whole=False))
    covered = np.zeros((height, width), bool)
    for view in views:
        assert 0 <= view.left < view.right <= width and 0 <= view.top < view.bottom <= height
        assert view.size == (min(tall, height), min(wide, width)) or len(views) == 1
        covered[view.top : view.bottom, view.left : view.right] = True
    assert covered.all()


@settings(deadline=None, max_examples=60)
@given(height=sides, width=sides, tall=tiles, wide=tiles, overlap=overlaps)
def test_neighbours_overlap_by_as_much_as_was_asked(height, width, tall, wide, overlap):
    views = views_of(height, width, Slicing(tall, wide, overlap=overlap, whole=False))
    lefts, tops = sorted({view.left for view in views}), sorted({view.top for view in views})
    assert all(left + wide - right >= overlap * wide for left, right in pairwise(lefts))
    assert all(top + tall - bottom >= overlap * tall for top, bottom in pairwise(tops))


@settings(deadline=None, max_examples=60)
@given(width=st.integers(65, 2000), overlap=overlaps)
def test_there_are_no_more_tiles_than_it_takes(width, overlap):
    views = views_of(64, width, Slicing(64, 64, overlap=overlap, whole=False))
    step = max(1, int(64 * (1 - overlap)))
    assert 64 + (len(views) - 2) * step < width


def test_an_object_smaller_than_the_overlap_is_whole_in_a_tile():
    views = views_of(300, 500, Slicing(100, 100, overlap=0.3, whole=False))
    for left in range(471):
        assert any(view.left <= left and left + 30 <= view.right for view in views)


def test_the_whole_picture_comes_last_and_can_be_left_out():
    assert views_of(100, 150, Slicing(100, 100, overlap=0.5))[-1] == View(0, 0, 150, 100)
    tiles = views_of(100, 150, Slicing(100, 100, overlap=0.5, whole=False))
    assert tiles == [View(0, 0, 100, 100), View(50, 0, 150, 100)]


def test_a_picture_that_is_one_tile_is_seen_once():
    assert views_of(100, 80, Slicing(100, 100)) == [View(0, 0, 80, 100)]
    assert len(views_of(32, 33, Slicing(32, 32, overlap=0.8, whole=False))) == 2


@pytest.mark.parametrize(
    "given", [{"height": 31}, {"width": 31}, {"overlap": 0.81}, {"overlap": -0.1}, {"overlap": np.nan}]
)
def test_slices_that_make_no_sense_are_refused(given):
    with pytest.raises(UsageError, match="expected"):
        Slicing(**{"height": 32, "width": 32, **given})
