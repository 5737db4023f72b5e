"""The tables and JSON of an evaluation whose numbers are counted by hand."""

import pytest
from made_sets import found, truths

from detr import __version__
from detr.evaluation.evaluate import evaluate

CAT, DOG, OWL, FISH = range(4)
BOX, ELSEWHERE = (50, 50, 40, 40), (150, 50, 40, 40)  # 1,600 square pixels: medium
CAT_AP = 51 / 101  # one of two is found: precision 1 at the recalls from 0 to 0.5


def measured(*, score=0.7):
    """Of two cats one is found, of two dogs in an image both, of an owl nothing; a fish is seen where there is none."""
    truth = truths(
        (0, CAT, *BOX), (1, CAT, *BOX), (2, DOG, *BOX), (2, DOG, *ELSEWHERE), (2, OWL, *BOX), (0, DOG, *BOX),
        names=("cat", "dog", "owl", "fi\nsh"), crowd=[5],
    )  # fmt: skip
    rows = [(0, CAT, *BOX, 0.9), (2, DOG, *BOX, 0.8), (2, DOG, *ELSEWHERE, score), (1, FISH, *BOX, 0.9)]
    return evaluate(truth, found(*rows), max_dets=101)


def test_the_table_says_each_number_with_what_it_was_measured_on():
    lines = measured().table().split("\n")
    average, every = "@[ IoU=0.50:0.95 | area=", (1 + CAT_AP) / 3
    assert lines[:12] == [
        f"Average Precision (AP) {average}   all | maxDets=101 ] = {every:.3f}",
        f"Average Precision (AP) @[ IoU=0.50      | area=   all | maxDets=101 ] = {every:.3f}",
        f"Average Precision (AP) @[ IoU=0.75      | area=   all | maxDets=101 ] = {every:.3f}",
        f"Average Precision (AP) {average} small | maxDets=101 ] = n/a",
        f"Average Precision (AP) {average}medium | maxDets=101 ] = {every:.3f}",
        f"Average Precision (AP) {average} large | maxDets=101 ] = n/a",
        f"Average Recall    (AR) {average}   all | maxDets=  1 ] = 0.333",
        f"Average Recall    (AR) {average}   all | maxDets= 10 ] = 0.500",
        f"Average Recall    (AR) {average}   all | maxDets=101 ] = 0.500",
        f"Average Recall    (AR) {average} small | maxDets=101 ] = n/a",
        f"Average Recall    (AR) {average}medium | maxDets=101 ] = 0.500",
        f"Average Recall    (AR) {average} large | maxDets=101 ] = n/a",
    ]
    assert lines[12:] == [
        f"AP at 100 detections = {every:.3f}",
        "3 images, 5 boxes, 1 crowd, 4 detections, 0 ties",
        f"evaluator detr {__version__}; areas in px²: small 0..1024, medium 1024..9216, large 9216..1e+10",
    ]


def test_the_best_class_comes_first_and_what_was_not_there_last():
    lines = measured().class_table().split("\n")
    assert [line.split() for line in lines] == [
        ["class", "AP", "AP50", "AR101", "boxes", "images", "detections"],
        ["dog", "1.000", "1.000", "1.000", "2", "1", "2"],
        ["cat", "0.505", "0.505", "0.500", "2", "2", "1"],
        ["owl", "0.000", "0.000", "0.000", "1", "1", "0"],
        ["fi?sh", "n/a", "n/a", "n/a", "0", "0", "1"],
    ]
    assert len({len(line) for line in lines}) == 1, "columns end below each other"


def test_metrics_show_themselves_in_a_line():
    assert repr(measured()) == f"Metrics(AP {(1 + CAT_AP) / 3:.3f}, AP50 {(1 + CAT_AP) / 3:.3f}; 3 images)"


def test_in_json_nothing_measured_is_null_and_nothing_found_is_0():
    metrics = measured()
    tree = metrics.to_json()
    assert tree["metrics"]["APs"] is None and tree["metrics"]["AP"] == metrics.ap == pytest.approx((1 + CAT_AP) / 3)
    assert [row["AP50"] for row in tree["classes"]] == [pytest.approx(CAT_AP), 1, 0, None]
    assert [row["crowds"] for row in tree["classes"]] == [0, 1, 0, 0]
    assert tree["settings"]["iou_thresholds"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert tree["settings"]["max_dets"] == [1, 10, 101] and metrics.ap50 == metrics.ap


def test_ties_are_equal_scores_of_one_class():
    assert measured().counts["ties"] == 0
    assert measured(score=0.8).counts["ties"] == 2
