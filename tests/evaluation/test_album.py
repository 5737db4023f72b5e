"""The pictures of an evaluation, drawn; how they look was judged by eye."""

from dataclasses import replace

import numpy as np
import pytest
from made_sets import found, random_case, truths
from PIL import Image

from detr.criterion.criterion import _CLASS_LOSSES
from detr.diagnose.diagnosis import diagnose
from detr.diagnose.worst import worst_pictures
from detr.evaluation import album, charts, plots
from detr.evaluation.album import draw_charts, draw_evaluation, draw_set
from detr.evaluation.evaluate import evaluate
from detr.evaluation.outcomes import outcomes
from detr.evaluation.pictures import draw_samples
from detr.evaluation.thresholds import calibration
from detr.image import InputConfig


def ink(path):
    """The share of pixels that are not white."""
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


def in_set(dataset, *rows):
    return replace(found(*rows, images=len(dataset)), image_ids=dataset.annotations.image_ids)


@pytest.mark.parametrize("classes", [1, 80])
def test_charts_are_drawn_for_one_class_and_for_eighty(tmp_path, classes):
    pytest.importorskip("matplotlib")
    annotations, detections = random_case(0, images=30, classes=classes + 1)
    metrics = evaluate(annotations, detections)
    paths = draw_charts(tmp_path, annotations, metrics, detections)
    paths += draw_set(tmp_path, annotations, InputConfig(height=320, width=320))
    charts.draw_calibration(calibration(outcomes(annotations, detections)), tmp_path / "calibration.png")
    precision = np.stack([metrics.precision_at(0.5), metrics.precision_at(0.75)])
    charts.draw_class_curves(precision, annotations.classes.names, tmp_path / "classes.png")
    assert [path.name for path in paths] == ["confusion.png", "confusion_shares.png", "curves.png", "labels.png"]
    assert all(ink(path) > 0.01 for path in [*paths, tmp_path / "calibration.png", tmp_path / "classes.png"])


def test_the_results_of_a_run_show_every_loss_of_the_last_layer(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    for loss in _CLASS_LOSSES.values():
        plots.draw_results([{"epoch": epoch, "loss": 2.0, loss: 1.0} for epoch in (1, 2, 3)], tmp_path / "results.png")
        axis = drawn[-1].axes[1]
        assert [line.get_label() for line in axis.lines] == [loss]
        assert all(tick.is_integer() for tick in axis.get_xticks())


def test_nothing_found_and_nothing_there_are_drawn_too(tmp_path):
    pytest.importorskip("matplotlib")
    for truth in (truths(), truths((0, 0, 5, 5, 20, 20))):
        draw_charts(tmp_path, truth, evaluate(truth, found()), found())
        draw_set(tmp_path, truth, InputConfig(height=64, width=64))
        charts.draw_calibration(calibration(outcomes(truth, found())), tmp_path / "calibration.png")


def test_precision_by_class_index_is_what_ap50_is_the_mean_of():
    metrics = evaluate(*random_case(3))
    means = metrics.precision_at(0.5).mean(0)
    assert means.tolist() == pytest.approx([row.ap50 for row in metrics.per_class])


def test_without_matplotlib_only_what_was_found_is_shown(tmp_path, small_sets, monkeypatch):
    monkeypatch.setattr("detr.evaluation.plots.available", lambda: False)
    dataset = small_sets["val_set"]
    known = dataset.annotations
    detections = in_set(dataset, (0, 0, 5, 5, 30, 30, 0.9))
    written = draw_evaluation(tmp_path, dataset, evaluate(known, detections), detections)
    assert [path.name for path in written] == [album.SAMPLES] and ink(written[0]) > 0.1
    assert not draw_set(tmp_path, known, InputConfig(height=64, width=64))


@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_any_number_of_channels_are_shown(tmp_path, small_sets, monkeypatch, channels):
    dataset = small_sets["val_set"]

    class Banded(type(dataset)):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, image=sample.image[:1].repeat(channels, 1, 1))

    monkeypatch.setattr(dataset, "__class__", Banded)
    draw_samples(dataset, in_set(dataset, (0, 0, 5, 5, 30, 30, 0.9)), tmp_path / "samples.jpg", score=0.5)
    assert ink(tmp_path / "samples.jpg") > 0.1
    boxes = in_set(dataset, (0, 0, 5, 5, 30, 30, 0.9), (0, 0, 40, 40, 9, 9, 0.95))
    seen = diagnose(dataset.annotations, boxes, num_queries=None, places="not seen")
    assert len(worst_pictures(seen, dataset)) > 0


def test_a_box_scored_below_is_not_shown(tmp_path, small_sets, monkeypatch):
    monkeypatch.setattr("detr.evaluation.plots.available", lambda: False)
    dataset = small_sets["val_set"]
    pictures = []
    for score in (0.9, 0.1, None):
        rows = [] if score is None else [(0, 0, 5, 5, 30, 30, score)]
        detections = in_set(dataset, *rows)
        draw_evaluation(tmp_path, dataset, evaluate(dataset.annotations, detections), detections)
        pictures.append((tmp_path / album.SAMPLES).read_bytes())
    assert pictures[0] != pictures[1] == pictures[2]
