"""The test of maps: right ones pass it, others don't."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detr.data.shapes import make_shapes
from detr.engine.detector import Detector
from detr.engine.explaining import answering, explain
from detr.explain.faithfulness import PLACES, Faithfulness, trials_of
from detr.explain.levels import Level
from detr.explain.records import Explanation, Step
from detr.video import frames

BOX = (8.0, 8.0, 24.0, 24.0)
WHITE = (slice(8, 16), slice(8, 16))  # what the model below goes by: a quarter of its box


def explanation_of(image, cells):
    """Of a model with one layer and head that looks at cells of 8 pixels, (row, column)."""
    weights = np.zeros((1, 1, 32), np.float32)
    for row, column in cells:
        weights[0, 0, row * 8 + column] = 1 / len(cells)
    return Explanation(
        image=image,
        label=0,
        name="thing",
        score=1.0,
        box=BOX,
        query=0,
        levels=(Level(4, 8, (4, 8), 0),),
        weights=weights,
        points=None,
        steps=(Step(BOX, 1.0),),
        start=None,
        proposal=None,
        sides=None,
        encoder=None,
    )


def answer(pictures):
    """A model that scores its only box by how white one place is."""
    return [(torch.tensor([BOX]), torch.tensor([[float(picture[WHITE].mean()) / 255]])) for picture in pictures]


@pytest.fixture
def image():
    image = np.zeros((32, 64, 3), np.uint8)
    image[WHITE] = 255
    return image


@pytest.mark.parametrize("hide", ["mean", "blur"])
def test_hiding_what_was_looked_at_costs_the_score(image, hide):
    [trial] = trials_of(image, [explanation_of(image, [(1, 1)])], answer, share=0.25, hide=hide, draws=3)
    assert trial.before == 1.0 and trial.score_drops["looked at"] > 0.3
    assert trial.score_drops["far off"] == 0 and trial.iou_drops["far off"] == 0
    assert trial.score_drops["looked at"] > trial.score_drops["inside the box"] > 0


def test_a_map_of_something_else_does_not_pass(image):
    [trial] = trials_of(image, [explanation_of(image, [(3, 6)])], answer, share=0.25, hide="mean")
    assert trial.score_drops["looked at"] == 0
    assert Faithfulness((trial,) * 5).margin <= 0


def hidden_of(cells, box=BOX, **options):
    """[h, w] each, what is hidden of a picture for an explanation of this box: first of all nothing."""
    noise = np.random.default_rng(0).integers(100, 255, (32, 64, 3), dtype=np.uint8)
    noise[..., 0] = 0
    noise[0, 0, 0] = 255  # so that no pixel has the mean colour
    changed = []

    def watching(pictures):
        changed.extend((picture != noise).any(-1) for picture in pictures)
        return answer(pictures)

    trials_of(noise, [replace(explanation_of(noise, cells), box=box)], watching, hide="mean", **options)
    return changed


def test_as_much_is_hidden_everywhere():
    whole, *hidden = (mask.sum() for mask in hidden_of([(1, 1), (2, 3)], share=0.5, draws=3))
    assert whole == 0 and len(hidden) == 6
    assert max(hidden) - min(hidden) <= 2 and max(hidden) <= 128


def test_inside_the_box_is_the_middle_of_what_the_picture_shows_of_it():
    """24 x 8 pixels of it, of which 3 tenths are 58: 14 x 4 around (52, 8), and two more."""
    _, looked_at, *_, inside = hidden_of([(1, 1)], box=(40.0, 4.0, 72.0, 12.0))
    assert looked_at.sum() == inside.sum() == 58
    assert inside[6:10, 45:59].all()


def test_pictures_of_many_bands_are_tried_and_drawn():
    image = np.random.default_rng(0).integers(0, 255, (32, 64, 5), dtype=np.uint8)
    one = explanation_of(image, [(1, 1)])
    for hide in ("blur", "mean"):
        [trial] = trials_of(image, [one], answer, hide=hide)
        assert trial.score_drops["far off"] == 0
    assert one.plot().shape[2] == 3


def test_a_lost_object_costs_all(image):
    def losing(pictures):
        return [
            (torch.tensor([BOX if picture is image else (0.0, 0.0, 3.0, 3.0)]), torch.ones(1, 1))
            for picture in pictures
        ]

    [trial] = trials_of(image, [explanation_of(image, [(1, 1)])], losing)
    assert set(trial.score_drops.values()) == set(trial.iou_drops.values()) == {1.0}


def test_numbers_and_table_say_the_same(image):
    trials = trials_of(image, [explanation_of(image, [(1, 1)])] * 3, answer, share=0.25, hide="mean")
    faithful = Faithfulness(tuple(trials), share=0.25, hide="mean")
    numbers = faithful.to_json()
    assert numbers["detections"] == 3 and set(numbers["mean_drops"]) == set(PLACES)
    assert f"{faithful.margin:+.3f}" in faithful.table() and "25% of the box's area, painted" in faithful.table()
    low, high = faithful.interval()
    assert low <= faithful.margin <= high
    assert numbers["looked_at_more_than"]["elsewhere"] == {
        "mean": pytest.approx(faithful.margin),
        "interval": [low, high],
    }


def test_one_detection_has_no_interval(image):
    faithful = Faithfulness(tuple(trials_of(image, [explanation_of(image, [(1, 1)])], answer)))
    assert np.isnan(faithful.interval()).all() and faithful.to_json()["looked_at_more_than"] is None
    assert "no clear difference" in faithful.table()


def test_the_embedded_model_looks_at_what_matters_to_it(tmp_path):
    folder = make_shapes(tmp_path / "shapes", images=1, val_images=5, video=False)
    detector = Detector("rtdetr-tiny")
    settings = detector.settings(conf=0.5, max_det=2, imgsz=256)
    again, trials = answering(detector, settings), []
    for frame in frames(folder / "images" / "val"):
        result, found = explain(detector, frame, settings)
        trials += trials_of(result.image, found, again, draws=1)
    faithful = Faithfulness(tuple(trials), draws=1)
    assert len(trials) >= 8
    assert faithful.margin > 0.1 and faithful.interval()[0] > 0.02
    assert faithful.mean_drop("looked at", of="iou") > 3 * faithful.mean_drop("elsewhere", of="iou")
    assert abs(faithful.mean_drop("far off")) < 0.05
