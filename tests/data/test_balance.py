import math

import numpy as np
import pytest

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.balance import epoch_length, repeat_factors, repeated, words_on_balance

SEEN = [(0, 0), *((image, 1) for image in range(4)), *((image, 2) for image in range(16))]  # (image, class)


def annotations(seen=SEEN, images=16, crowd=()):
    """Class 0 is in one image of 16, class 1 in 4, class 2 in all; class 3 in none."""
    places, labels = np.array(seen, dtype=np.int64).reshape(-1, 2).T
    count = len(places)
    return Annotations(
        classes=Classes.from_names("abcd"), image_ids=tuple(range(images)),
        file_names=tuple(f"{index}.jpg" for index in range(images)),
        heights=np.full(images, 9), widths=np.full(images, 9), image_indices=places, labels=labels,
        boxes=np.ones((count, 4)), areas=np.ones(count), crowd=np.isin(np.arange(count), crowd),
    )  # fmt: skip


def test_an_image_comes_as_often_as_its_rarest_class_wants():
    """sqrt(0.25 / (1 / 16)) = 2 and sqrt(0.25 / (4 / 16)) = 1."""
    assert repeat_factors(annotations(), 0.25).tolist() == [2.0, *[1.0] * 15]
    assert repeat_factors(annotations(), 1.0) == pytest.approx([4.0, 2.0, 2.0, 2.0, *[1.0] * 12])
    assert epoch_length(annotations(), 0.25) == 17
    assert epoch_length(annotations(), None) == 16


def test_a_threshold_that_all_classes_pass_changes_nothing():
    assert repeated(repeat_factors(annotations(), 1 / 16), seed=0, epoch=0).tolist() == list(range(16))


def test_a_sum_that_is_a_whole_number_but_for_rounding_is_that_number():
    """Ten times 1.2 is 11.999999999999998 to a computer."""
    for epoch in range(20):
        assert len(repeated(np.full(10, 1.2), seed=0, epoch=epoch)) == 12


def test_crowds_and_images_without_boxes_ask_for_nothing():
    assert repeat_factors(annotations(crowd=[0]), 0.25).tolist() == [1.0] * 16
    assert repeat_factors(annotations(seen=[]), 0.5).tolist() == [1.0] * 16


FACTORS = np.array([1.0, 1.5, 2.25, 1.0, 3.75, 1.0])


@pytest.mark.parametrize("epoch", range(20))
def test_factors_are_rounded_down_or_up_and_the_length_stays(epoch):
    views = repeated(FACTORS, seed=1, epoch=epoch)
    times = np.bincount(views % 6, minlength=6)
    assert len(views) == len(set(views.tolist())) == 10  # floor(10.5)
    assert (times >= 1).all() and (times <= np.ceil(FACTORS)).all()
    assert set(range(6)) <= set(views.tolist())  # each image itself, then its repetitions


def test_whole_sums_are_met_on_average():
    factors = np.array([1.0, 1.5, 2.25, 1.0, 3.25, 1.0])
    times = [np.bincount(repeated(factors, seed=0, epoch=epoch) % 6, minlength=6) for epoch in range(2000)]
    assert {each.sum() for each in times} == {10}
    assert np.mean(times, 0) == pytest.approx(factors, abs=0.05)


def test_epochs_and_seeds_differ_and_repeat_themselves():
    drawn = {(seed, epoch): tuple(repeated(FACTORS, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(9)}
    assert len(set(drawn.values())) > 5
    assert drawn[2, 3] == tuple(repeated(FACTORS, seed=2, epoch=3))


def test_it_is_said_in_a_line():
    said = words_on_balance(annotations(), 0.25)
    assert said == "balanced: 16 images are 17 an epoch; 1 come more than once, 0.jpg 2.0 times"
    assert math.isclose(float(repeat_factors(annotations(), 0.25).sum()), 17)
