import json

import numpy as np
import pytest
from made_sets import found, random_case, truths

from detr.classes import Classes
from detr.errors import InputError, UsageError
from detr.evaluation.outcomes import outcomes
from detr.evaluation.thresholds import SCORES, by_score, calibration, read_thresholds, thresholds_file

CAT, DOG = 0, 1
BOX = (50, 50, 40, 40)


def test_the_best_threshold_lies_between_the_right_boxes_and_the_phantoms():
    truth = truths((0, CAT, *BOX), (1, CAT, *BOX))
    detections = found((0, CAT, *BOX, 0.9), (1, CAT, *BOX, 0.6), (2, CAT, *BOX, 0.4))
    measured = by_score(outcomes(truth, detections))
    assert measured.best[CAT] == pytest.approx(0.5) and measured.best_f1[CAT] == 1
    assert np.isnan(measured.best[DOG]) and measured.threshold(0.3)[DOG] == 0.3


@pytest.mark.parametrize("seed", range(4))
def test_no_other_threshold_is_better_and_the_curves_say_what_counting_says(seed):
    annotations, detections = random_case(seed, digits=1)
    seen = outcomes(annotations, detections)
    measured, counts = by_score(seen), annotations.counts()
    for k in range(len(counts)):
        for s, score in enumerate(SCORES):
            shown = (seen.labels == k) & (seen.scores >= score) & ~seen.ignored
            right = int((shown & seen.right).sum())
            assert measured.f1[k, s] == pytest.approx(2 * right / max(1, shown.sum() + counts[k]))
            assert measured.recall[k, s] == pytest.approx(right / max(1, counts[k]))
            precision = right / shown.sum() if shown.any() else np.nan
            assert measured.precision[k, s] == pytest.approx(precision, nan_ok=True)
        assert measured.best_f1[k] >= measured.f1[k].max() - 1e-12
        if measured.best_f1[k] > 0:
            shown = (seen.labels == k) & (seen.scores >= measured.best[k]) & ~seen.ignored
            assert measured.best_f1[k] == pytest.approx(2 * (shown & seen.right).sum() / (shown.sum() + counts[k]))


def test_scores_that_are_shares_of_right_boxes_are_calibrated_and_others_are_not():
    boxes = [(n % 3, CAT, 30 * (n // 3), 0, 20, 20) for n in range(10)]
    truth = truths(*boxes[:8])
    assert calibration(outcomes(truth, found(*((*box, 0.8) for box in boxes)))).error == pytest.approx(0)
    sure = calibration(outcomes(truth, found(*((*box, 1.0) for box in boxes))))
    assert sure.error == pytest.approx(0.2) and sure.counts.tolist() == [0] * 9 + [10]
    assert np.isnan(calibration(outcomes(truth, found())).error)


def test_calibration_counts_by_tenths_of_the_score_without_crowds_and_what_nobody_shows():
    """Of two boxes about 0.35 one is right, one of 0.07 is not: |0.5 - 0.35| twice, and 0.07."""
    truth = truths((0, CAT, *BOX), (1, CAT, 0, 0, 100, 100), crowd=[1])
    rows = [(0, CAT, *BOX, 0.32), (0, CAT, 200, 0, 9, 9, 0.38), (2, CAT, *BOX, 0.07)]
    left_out = [(2, CAT, *BOX, 0.049), (1, CAT, 10, 10, 20, 20, 0.9)]
    measured = calibration(outcomes(truth, found(*rows, *left_out)))
    assert measured.counts.tolist() == [1, 0, 0, 2, *[0] * 6]
    assert measured.score[[0, 3]] == pytest.approx([0.07, 0.35]) and measured.precision[[0, 3]].tolist() == [0, 0.5]
    assert measured.error == pytest.approx((2 * 0.15 + 0.07) / 3)


def test_the_file_of_thresholds_is_read_by_name(tmp_path):
    truth = truths((0, CAT, *BOX), names=("cat", "dog"))
    measured = by_score(outcomes(truth, found((0, CAT, *BOX, 0.8))))
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(thresholds_file(measured, truth.classes)))
    assert read_thresholds(path, Classes.from_names(["dog", "cat"])) == pytest.approx((0.4, 0.4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"thresholds\.json:1:2: not valid JSON"),
        ("[]", "detr val --why"),
        ('{"thresholds": {"cat": 2}}', "no number from 0 to 1"),
        ('{"thresholds": {"Cats": 0.5}}', "other classes than the model's"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, said):
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_thresholds(path, Classes.from_names(["cat"]))
    with pytest.raises(UsageError, match="no such file"):
        read_thresholds(tmp_path / "absent.json", Classes.from_names(["cat"]))
