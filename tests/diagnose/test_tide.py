import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tide
from made_sets import found, random_case, truths

from detr.diagnose.tide import CAUSES, RIGHT, find_causes
from detr.evaluation.outcomes import outcomes

RECORDED = json.loads((Path(__file__).parent.parent / "golden" / "tide.json").read_text())
CAT, DOG = 0, 1
BOX = (50, 50, 40, 40)


def causes(truth, detections):
    return find_causes(outcomes(truth, detections))


def named(causes):
    return ["right" if index == RIGHT else CAUSES[index] for index in causes.cause]


def require_equal(causes, expected):
    assert 100 * causes.ap50 == pytest.approx(expected["ap50"], abs=1e-9)
    ours = {**causes.gains, "false positives": causes.without_false, "false negatives": causes.without_missed}
    assert {name: 100 * gain for name, gain in ours.items()} == pytest.approx(expected["gains"], abs=1e-9)
    assert causes.counts() == expected["counts"]


@pytest.mark.parametrize("seed", RECORDED)
def test_numbers_are_those_recorded_from_the_reference_library(seed):
    require_equal(causes(*random_case(int(seed))), RECORDED[seed])


@pytest.mark.skipif(importlib.util.find_spec("tidecv") is None, reason="compares with tidecv, where it is installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(100, 140))
def test_numbers_are_those_of_the_reference_library(seed):
    case = random_case(seed, images=20 + seed % 5, classes=2 + seed % 7, digits=1 + seed % 3)
    require_equal(causes(*case), tide.measured(*case))


def test_more_than_a_hundred_detections_of_an_image_do_not_count():
    many = [(0, CAT, *BOX, 0.9)] + [(0, DOG, 200, 10, 20, 20, 0.8)] * 120
    assert causes(truths((0, CAT, *BOX)), found(*many)).counts()["background"] == 99


@pytest.mark.parametrize(
    ("cause", "detection"),
    [
        ("right", (0, CAT, *BOX, 0.9)),
        ("class", (0, DOG, *BOX, 0.9)),
        ("place", (0, CAT, 75, 50, 40, 40, 0.9)),
        ("both", (0, DOG, 75, 50, 40, 40, 0.9)),
        ("background", (0, CAT, 200, 100, 40, 40, 0.9)),
        ("background", (1, CAT, *BOX, 0.9)),
    ],
)
def test_a_detection_has_the_cause_it_was_made_to_have(cause, detection):
    assert named(causes(truths((0, CAT, *BOX)), found(detection))) == [cause]


def test_the_second_detection_of_an_object_is_a_duplicate():
    seen = causes(truths((0, CAT, *BOX)), found((0, CAT, *BOX, 0.9), (0, CAT, 52, 50, 40, 40, 0.8)))
    assert named(seen) == ["right", "duplicate"] and seen.about.tolist() == [-1, 0]


def test_mending_the_only_error_makes_ap_whole():
    for detection, cause in (((0, DOG, *BOX, 0.9), "class"), ((0, CAT, 75, 50, 40, 40, 0.9), "place")):
        seen = causes(truths((0, CAT, *BOX), names=("cat", "dog")), found(detection))
        assert seen.ap50 == 0 and seen.gains[cause] == 1 and not seen.missed.any()


def test_an_object_without_any_box_is_missed():
    seen = causes(truths((0, CAT, *BOX), (1, CAT, *BOX)), found((0, CAT, *BOX, 0.9)))
    assert seen.missed.tolist() == [False, True] and seen.gains["missed"] == pytest.approx(1 - seen.ap50)


def test_what_lies_in_a_crowd_of_its_class_is_no_error_of_ap():
    truth = truths((0, CAT, *BOX), (0, CAT, 100, 100, 90, 90), crowd=[1])
    with_crowd = causes(truth, found((0, CAT, *BOX, 0.5), (0, CAT, 120, 120, 20, 20, 0.9)))
    assert with_crowd.ap50 == 1 and not with_crowd.missed.any()


@pytest.mark.parametrize("truth", [truths(), truths((0, CAT, *BOX))])
def test_nothing_found_is_nothing_right(truth):
    seen = causes(truth, found())
    assert seen.ap50 == 0 and len(seen.cause) == 0 and np.isfinite(list(seen.gains.values())).all()
