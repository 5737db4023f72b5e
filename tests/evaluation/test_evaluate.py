import os
import subprocess
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.errors import InputError, UsageError
from detr.evaluation.evaluate import evaluate
from detr.evaluation.predictions import DetectionArrays

RANDOM_SETS = int(os.environ.get("DETR_ORACLE_SETS", "300"))


def annotations_of(boxes, *, labels=None, images=None, areas=None, crowd=None, image_ids=None, class_ids=None):
    """Ground truth from lists; one image and one class unless told otherwise."""
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    number = len(boxes)
    images = np.zeros(number, int) if images is None else np.array(images, dtype=int)
    labels = np.zeros(number, int) if labels is None else np.array(labels, dtype=int)
    image_ids = tuple(range(1, images.max(initial=0) + 2)) if image_ids is None else tuple(image_ids)
    class_ids = tuple(range(1, labels.max(initial=0) + 2)) if class_ids is None else tuple(class_ids)
    sizes = np.full(len(image_ids), 1000)
    return Annotations(
        classes=Classes(class_ids, tuple(f"class {id}" for id in class_ids)),
        image_ids=image_ids,
        file_names=tuple(f"{id}.jpg" for id in image_ids),
        heights=sizes,
        widths=sizes,
        image_indices=images,
        labels=labels,
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3] if areas is None else np.array(areas, dtype=float),
        crowd=np.zeros(number, bool) if crowd is None else np.array(crowd, dtype=bool),
    )


def detections_of(annotations, boxes, scores, *, labels=None, images=None):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    zeros = np.zeros(len(boxes), int)
    return DetectionArrays(
        image_ids=annotations.image_ids,
        image_indices=zeros if images is None else np.array(images, dtype=int),
        labels=zeros if labels is None else np.array(labels, dtype=int),
        boxes=boxes,
        scores=np.array(scores, dtype=float),
    )


def random_set(seed):
    """A small set with what real ones rarely have: ties, duplicates, crowds, empty boxes, gaps, areas of their own."""
    draw = np.random.default_rng(seed)
    num_images, num_classes = draw.integers(1, 8), draw.integers(1, 5)
    text = draw.random() < 0.1
    ids = draw.permutation(draw.choice(np.arange(-3, 60), num_images, replace=False)).tolist()
    class_ids = draw.choice(np.arange(0, 30), num_classes, replace=False).tolist()
    step = draw.choice([1.0, 5.0, 7.3])  # a grid, so that equal IoUs and areas on the very limits are common
    largest = draw.choice([6, 20, 150]) * step

    def boxes(number):
        corners = np.round(draw.uniform(0, largest, (number, 2)) / step) * step
        sizes = (
            np.round(draw.choice([12, 32, 40, 96, 130], (number, 2)) * draw.uniform(0, 1.2, (number, 1)) / step) * step
        )
        sizes[draw.random(number) < 0.03] = 0
        return np.concatenate((corners, sizes), 1)

    num_boxes = int(draw.choice([0, 1, 5, 30, 60], p=[0.03, 0.07, 0.3, 0.4, 0.2]))
    truth = boxes(num_boxes)
    truth_images, truth_labels = draw.integers(0, num_images, num_boxes), draw.integers(0, num_classes, num_boxes)
    areas = truth[:, 2] * truth[:, 3] * np.where(draw.random(num_boxes) < 0.3, draw.uniform(0.3, 1.2, num_boxes), 1)
    areas[draw.random(num_boxes) < 0.1] = draw.choice([1024.0, 9216.0])
    annotations = annotations_of(
        truth,
        labels=truth_labels,
        images=truth_images,
        areas=areas,
        crowd=draw.random(num_boxes) < draw.choice([0, 0.1, 0.5]),
        image_ids=[f"image {id}" for id in ids] if text else ids,
        class_ids=class_ids,
    )
    found, images, labels = [boxes(draw.integers(0, 20))], [], []
    images.append(draw.integers(0, num_images, len(found[0])))
    labels.append(draw.integers(0, num_classes, len(found[0])))
    for _ in range(draw.integers(0, 4) if num_boxes else 0):
        again = draw.integers(0, num_boxes, draw.integers(1, 40))
        shift = np.round(draw.normal(0, draw.choice([0, 2, 8]), (len(again), 4)) / step) * step
        found.append(truth[again] + shift * np.array([1, 1, 0, 0]))
        images.append(truth_images[again])
        labels.append(np.where(draw.random(len(again)) < 0.1, draw.integers(0, num_classes), truth_labels[again]))
    found = np.concatenate(found)
    scores = np.round(draw.random(len(found)), int(draw.choice([0, 1, 2, 9])))
    order = draw.permutation(len(found))
    return annotations, detections_of(
        annotations,
        found[order],
        scores[order],
        labels=np.concatenate(labels)[order],
        images=np.concatenate(images)[order],
    )


def pycocotools_says(annotations, detections, max_dets=(1, 10, 100)):
    """Its 12 numbers and its arrays, with the set's own image and category ids, by its usual way in."""
    dataset = {
        "images": [{"id": id} for id in annotations.image_ids],
        "categories": [{"id": id} for id in annotations.classes.ids],
        "annotations": [
            {
                "id": number + 1,
                "image_id": annotations.image_ids[annotations.image_indices[number]],
                "category_id": annotations.classes.ids[annotations.labels[number]],
                "bbox": annotations.boxes[number].tolist(),
                "area": float(annotations.areas[number]),
                "iscrowd": int(annotations.crowd[number]),
            }
            for number in range(len(annotations.labels))
        ],
    }
    results = [
        {
            "image_id": detections.image_ids[detections.image_indices[number]],
            "category_id": annotations.classes.ids[detections.labels[number]],
            "bbox": detections.boxes[number].tolist(),
            "score": float(detections.scores[number]),
        }
        for number in range(len(detections))
    ]
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    judge = COCOeval(coco, coco.loadRes(results), "bbox")
    judge.params.maxDets = list(max_dets)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats, judge.eval


def assert_equal_to_pycocotools(annotations, detections):
    stats, arrays = pycocotools_says(annotations, detections)
    ours = evaluate(annotations, detections)
    assert ours.stats.tolist() == stats.tolist()
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(getattr(ours.curves, name), arrays[name]), name
    return ours


@pytest.mark.parametrize("part", range(3))
def test_random_sets_give_the_numbers_and_curves_of_pycocotools_to_the_last_bit(part):
    compared = 0
    for seed in range(part, RANDOM_SETS, 3):
        annotations, detections = random_set(seed)
        if len(detections):
            assert_equal_to_pycocotools(annotations, detections)
            compared += 1
    assert compared > 0.9 * RANDOM_SETS / 3


@pytest.mark.parametrize("limits", [(1, 2, 4), (2, 5, 10)])
def test_curves_at_other_limits_of_detections_are_those_of_pycocotools(limits):
    for seed in range(1000, 1030):
        annotations, detections = random_set(seed)
        if len(detections):
            _, arrays = pycocotools_says(annotations, detections, limits)
            curves = evaluate(annotations, detections, max_dets=limits).curves
            assert curves.max_dets == limits
            for name in ("precision", "recall", "scores"):
                assert np.array_equal(getattr(curves, name), arrays[name]), (seed, name)


def test_a_set_without_any_detection_scores_zero_and_says_so():  # E1
    metrics = evaluate(truth := annotations_of([[0, 0, 50, 50]]), detections_of(truth, [], []))
    assert metrics.as_dict()["AP"] == 0
    assert (
        metrics.stats.tolist() == evaluate(truth, detections_of(truth, [], []), evaluator="pycocotools").stats.tolist()
    )
    assert any("no detections" in note for note in metrics.notes)


def test_without_ground_truth_every_number_is_not_available():  # E2
    truth = annotations_of([])
    metrics = evaluate(truth, detections_of(truth, [[0, 0, 5, 5]], [0.5]))
    assert metrics.stats.tolist() == [-1] * 12
    assert set(metrics.to_json()["metrics"].values()) == {None}
    assert metrics.table().count("n/a") == 12
    assert any("no annotated boxes" in note for note in metrics.notes)


def test_no_images_is_an_error():  # E3
    truth = annotations_of([], image_ids=())
    with pytest.raises(InputError, match="0 images"):
        evaluate(truth, detections_of(truth, [], []))


@pytest.mark.parametrize("evaluator", ["detr", "pycocotools"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_detected_box_that_is_not_finite_is_refused_with_its_image(value, evaluator):  # E4, E5
    truth = annotations_of([[0, 0, 50, 50]], image_ids=[5, 17], images=[0])
    found = detections_of(truth, [[0, 0, 50, 50], [0, 0, value, 50]], [0.9, 0.8], images=[0, 1])
    with pytest.raises(InputError, match=r"1 detected boxes are not finite.*in image 17"):
        evaluate(truth, found, evaluator=evaluator)


def test_a_score_that_is_not_a_number_is_refused():  # E6
    truth = annotations_of([[0, 0, 50, 50]])
    with pytest.raises(InputError, match="1 scores are not finite"):
        evaluate(truth, detections_of(truth, [[0, 0, 50, 50]], [np.nan]))


def test_an_annotated_box_that_is_not_finite_is_refused():  # E7
    truth = annotations_of([[0, np.nan, 50, 50]])
    with pytest.raises(InputError, match="annotated boxes are not finite"):
        evaluate(truth, detections_of(truth, [[0, 0, 50, 50]], [1]))
    truth = annotations_of([[0, 0, 50, 50]], areas=[np.inf])
    with pytest.raises(InputError, match="annotated areas are not finite"):
        evaluate(truth, detections_of(truth, [[0, 0, 50, 50]], [1]))


@pytest.mark.parametrize("evaluator", ["detr", "pycocotools"])
def test_no_match_is_lost_to_an_annotation_id_of_zero(
    evaluator,
):  # E8: there pycocotools gives 0.25
    truth = annotations_of([[0, 0, 50, 50], [100, 100, 50, 50]])
    assert evaluate(truth, detections_of(truth, truth.boxes, [0.9, 0.8]), evaluator=evaluator).ap == pytest.approx(1)


def test_image_ids_may_be_text_negative_or_beyond_float64():  # E19, E22
    for ids in [("b", "a"), (-7, 3), (2**53 + 1, 2**53)]:
        truth = annotations_of([[0, 0, 50, 50], [0, 0, 40, 40]], images=[0, 1], image_ids=ids)
        found = detections_of(truth, truth.boxes, [0.5, 0.5], images=[0, 1])
        assert assert_equal_to_pycocotools(truth, found).ap == pytest.approx(1)


def test_category_ids_may_be_zero_have_gaps_or_be_text():  # E23
    for ids in [(7, 0, 90), ("zebra", "ant", "bee")]:
        truth = annotations_of([[0, 0, 50, 50], [0, 0, 40, 40]], labels=[0, 2], class_ids=ids)
        found = detections_of(truth, truth.boxes, [0.5, 0.25], labels=[0, 1])
        metrics = assert_equal_to_pycocotools(truth, found)
        assert [row.id for row in metrics.per_class] == list(ids)
        assert [row.ap for row in metrics.per_class] == pytest.approx([1, -1, 0])


def test_a_detection_without_size_is_a_false_positive_and_is_counted():  # E24
    truth = annotations_of([[0, 0, 50, 50], [100, 0, 50, 50]])
    for size in ([0, 50], [0, 0], [-50, -50]):
        found = detections_of(truth, [[0, 0, *size], [0, 0, 50, 50]], [0.9, 0.8])
        metrics = assert_equal_to_pycocotools(truth, found)
        assert metrics.ap == pytest.approx(0.5 * 51 / 101)
        assert any(note.startswith("1 detection has no or negative size") for note in metrics.notes)


def test_a_box_of_exactly_1024_pixels_is_small_and_medium():  # E26
    truth = annotations_of([[0, 0, 32, 32]])
    metrics = assert_equal_to_pycocotools(truth, detections_of(truth, truth.boxes, [0.9])).as_dict()
    assert (metrics["APs"], metrics["APm"], metrics["APl"]) == pytest.approx((1, 1, -1))


def test_the_annotations_own_area_decides_its_size():  # E27
    truth = annotations_of([[0, 0, 100, 100]], areas=[500])
    metrics = assert_equal_to_pycocotools(truth, detections_of(truth, truth.boxes, [0.9])).as_dict()
    assert (metrics["APs"], metrics["APm"], metrics["APl"]) == pytest.approx((1, -1, -1))


def test_a_crowd_takes_any_number_of_detections_without_counting_them():  # E28
    truth = annotations_of([[0, 0, 200, 200], [300, 300, 50, 50]], crowd=[True, False])
    inside = [[10, 10, 40, 40], [60, 60, 40, 40], [120, 120, 40, 40]]
    found = detections_of(truth, [*inside, [300, 300, 50, 50]], [0.9, 0.8, 0.7, 0.6])
    assert assert_equal_to_pycocotools(truth, found).ap == pytest.approx(1)
    only = annotations_of([[0, 0, 200, 200]], crowd=[True])
    metrics = assert_equal_to_pycocotools(only, detections_of(only, inside, [0.9, 0.8, 0.7]))
    assert metrics.stats.tolist() == [-1] * 12
    assert metrics.notes == ("all annotated boxes are crowds: nothing can be measured",)


def test_equal_scores_stand_in_the_order_of_images_by_id_and_then_of_the_file():  # E30
    truth = annotations_of([[0, 0, 50, 50]], images=[0], image_ids=[9, 4])
    hit, miss = [0, 0, 50, 50], [500, 500, 50, 50]
    in_file = {(0, 0): [[hit, miss], 1.0], (0, 0, 0): [[miss, hit], 0.5]}
    for images, (boxes, ap) in in_file.items():
        found = detections_of(truth, boxes, [0.5, 0.5], images=images[:2])
        assert assert_equal_to_pycocotools(truth, found).ap == pytest.approx(ap)
    other_image_first = detections_of(truth, [hit, miss], [0.5, 0.5], images=[0, 1])
    metrics = assert_equal_to_pycocotools(truth, other_image_first)
    assert metrics.ap == pytest.approx(0.5)  # image 4 comes before image 9
    assert metrics.counts["ties"] == 2


@pytest.mark.parametrize(("width", "hits"), [(100, 10), (75, 6), (50, 1), (49.999, 0)])
def test_an_iou_exactly_at_a_threshold_is_a_match(width, hits):  # E31
    truth = annotations_of([[0, 0, 100, 100]])
    metrics = assert_equal_to_pycocotools(truth, detections_of(truth, [[0, 0, width, 100]], [1]))
    assert metrics.ap == pytest.approx(hits / 10)


def test_of_two_truths_with_equal_iou_the_later_is_taken():  # E32
    truth = annotations_of([[0, 0, 100, 100], [0, 0, 100, 100]], areas=[500, 5000])
    metrics = assert_equal_to_pycocotools(truth, detections_of(truth, [[0, 0, 100, 100]], [1])).as_dict()
    assert (metrics["APs"], metrics["APm"]) == pytest.approx((1, 1))
    both = annotations_of([[0, 0, 100, 100], [0, 0, 100, 100]], crowd=[True, False])
    assert assert_equal_to_pycocotools(both, detections_of(both, [[0, 0, 100, 100]] * 2, [1, 0.9])).ap == pytest.approx(
        1
    )


def test_a_hundred_detections_count_per_class_and_image():  # E33
    boxes = [[60 * (n % 15), 60 * (n // 15), 50, 50] for n in range(150)]
    truth = annotations_of(boxes)
    metrics = assert_equal_to_pycocotools(truth, detections_of(truth, boxes, np.linspace(1, 0.5, 150)))
    assert metrics.ap == pytest.approx(67 / 101)
    assert [note[:46] for note in metrics.notes] == [
        "1 image has more than 100 boxes of a class; on",
        "1 image has more than 100 detections of a clas",
    ]


@pytest.mark.parametrize("evaluator", ["detr", "pycocotools"])
def test_with_more_detections_allowed_ap_is_taken_at_the_largest_and_shown_at_100_too(evaluator):  # E34
    boxes = [[60 * (n % 15), 60 * (n // 15), 50, 50] for n in range(150)]
    truth = annotations_of(boxes)
    found = detections_of(truth, boxes, np.linspace(1, 0.5, 150))
    metrics = evaluate(truth, found, max_dets=(1, 10, 300), evaluator=evaluator)
    assert metrics.ap == pytest.approx(1)
    assert metrics.also == {"AP at 100 detections": evaluate(truth, found).ap}
    assert metrics.names[6:9] == ("AR1", "AR10", "AR300")
    assert metrics.stats[6:9] == pytest.approx([1 / 150, 10 / 150, 1])


def test_one_limit_of_detections_gives_all_twelve_numbers():  # E35
    truth = annotations_of([[0, 0, 50, 50]])
    found = detections_of(truth, truth.boxes, [1])
    assert evaluate(truth, found, max_dets=100).as_dict() == evaluate(truth, found).as_dict()
    for few in (1, 5):
        assert evaluate(truth, found, max_dets=few).stats.tolist() == evaluate(truth, found).stats.tolist()


@pytest.mark.parametrize("wrong", [0, -1, (1, 10), (10, 1, 100), (1, 1, 1), (1.5, 2, 3), ()])
def test_limits_of_detections_that_mean_nothing_are_refused(wrong):
    truth = annotations_of([[0, 0, 50, 50]])
    with pytest.raises(UsageError, match="max dets"):
        evaluate(truth, detections_of(truth, [], []), max_dets=wrong)


def test_an_unknown_evaluator_is_refused():
    truth = annotations_of([[0, 0, 50, 50]])
    with pytest.raises(UsageError, match="expected 'detr' or 'pycocotools'"):
        evaluate(truth, detections_of(truth, [], []), evaluator="hotcoco")


def test_boxes_beyond_cocos_largest_area_are_not_counted_and_that_is_said():  # E36
    truth = annotations_of([[0, 0, 1e5, 1e5 + 1]])
    metrics = assert_equal_to_pycocotools(truth, detections_of(truth, truth.boxes, [1]))
    assert metrics.ap == -1
    assert any("larger than 1e+10 square pixels" in note for note in metrics.notes)


def test_scores_outside_0_to_1_are_taken_as_they_are_and_that_is_said():  # E37
    truth = annotations_of([[0, 0, 50, 50], [100, 0, 50, 50]])
    metrics = assert_equal_to_pycocotools(truth, detections_of(truth, truth.boxes, [7.5, -3]))
    assert metrics.ap == pytest.approx(1)
    assert metrics.notes == ("2 scores lie outside 0..1",)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_images_and_of_different_scores_in_the_file_changes_nothing(seed):  # E40
    annotations, detections = random_set(100 + seed)
    draw = np.random.default_rng(seed)
    scores = draw.permutation(len(detections)) / max(1, len(detections))
    boxes, labels, images = detections.boxes, detections.labels, detections.image_indices
    before = evaluate(annotations, detections_of(annotations, boxes, scores, labels=labels, images=images))
    order = draw.permutation(len(scores))
    after = detections_of(annotations, boxes[order], scores[order], labels=labels[order], images=images[order])
    assert evaluate(annotations, after).stats.tolist() == before.stats.tolist()


def test_both_evaluators_give_the_same_report():
    annotations, detections = random_set(11)
    ours, theirs = (evaluate(annotations, detections, evaluator=name).to_json() for name in ("detr", "pycocotools"))
    assert ours.pop("settings") != theirs.pop("settings")
    assert ours == theirs


def test_pycocotools_prints_nothing(capfd):
    annotations, detections = random_set(11)
    evaluate(annotations, detections, evaluator="pycocotools")
    assert capfd.readouterr() == ("", "")


def test_many_blocks_of_pairs_give_the_numbers_of_one(monkeypatch):
    import detr.evaluation.matching as module

    annotations, detections = random_set(7)
    whole = evaluate(annotations, detections)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 3)
    assert np.array_equal(evaluate(annotations, detections).curves.precision, whole.curves.precision)


def test_classes_are_counted():
    truth = annotations_of(
        [[0, 0, 9, 9], [20, 0, 9, 9], [40, 0, 9, 9], [0, 0, 9, 9]],
        labels=[0, 0, 0, 1],
        images=[0, 0, 1, 1],
        crowd=[False, False, False, True],
    )
    found = detections_of(truth, [[0, 0, 9, 9], [20, 0, 9, 9]], [0.5, 0.4], labels=[0, 0], images=[0, 0])
    one, two = evaluate(truth, found).per_class
    assert (one.num_boxes, one.num_crowds, one.num_images, one.num_detections) == (3, 0, 2, 2)
    assert (one.ap, one.ar) == pytest.approx((67 / 101, 2 / 3))
    assert (two.num_boxes, two.num_crowds, two.num_images, two.ap) == (0, 1, 0, -1)


def test_the_settings_are_recorded():
    truth = annotations_of([[0, 0, 50, 50]])
    settings = evaluate(truth, detections_of(truth, [], [])).to_json()["settings"]
    assert settings["max_dets"] == [1, 10, 100]
    assert settings["iou_thresholds"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert settings["area_ranges"]["medium"] == [1024, 9216]
    assert settings["evaluator"] == "detr" and settings["version"]


def test_evaluating_needs_neither_torch_nor_pycocotools():
    code = "import sys, detr.evaluation.evaluate; print({'torch', 'pycocotools'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
