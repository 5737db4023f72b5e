"""The AP that training tells is that of `detr val`, and that of what `detr predict` writes."""

import json

import pytest

from detr.engine.detector import Detector
from detr.engine.predict import predict
from detr.engine.saving import Wanted
from detr.evaluation.evaluate import evaluate
from detr.evaluation.predictions import read_predictions
from detr.evaluation.validate import validate
from detr.training.recipe import at_size, load_recipe
from detr.training.saved.checkpoint import LAST
from detr.training.train import train
from detr.video.sources import find_sources

BATCH = 2


@pytest.fixture
def trained(small_sets, tmp_path, plain):
    recipe = at_size(load_recipe("rtdetr-tiny", ["train.epochs=1", f"train.batch={BATCH}"], finetune=True), 160)
    settings = {"out": tmp_path / "run", "weights": "rtdetr-tiny", "device": "cpu", "workers": 0}
    return train(recipe, **small_sets, **settings, say=lambda line: None)


def test_training_validation_and_prediction_give_one_number(trained, small_sets, tmp_path):
    dataset = small_sets["val_set"]
    detector = Detector(trained.out / LAST, device="cpu")
    metrics, _ = validate(detector.runner(), dataset, batch_size=BATCH, quiet=True)
    numbers = metrics.as_dict()
    assert 0.05 < numbers["AP"] < 1
    assert {name: value for name, value in numbers.items() if value >= 0} == pytest.approx(trained.metrics, abs=1e-12)

    files = [str(dataset.images / name) for name in dataset.annotations.file_names]
    settings = detector.settings(conf=0.0, max_det=300)
    wanted = Wanted(images=False, json=True)
    (tmp_path / "found").mkdir()
    predict(detector, find_sources(files), settings, tmp_path / "found", wanted=wanted, batch=BATCH, quiet=True)
    path = tmp_path / "found" / "predictions.json"
    assert {row["file_name"] for row in json.loads(path.read_text())} == set(dataset.annotations.file_names)
    again = evaluate(dataset.annotations, read_predictions(path, dataset.annotations)).as_dict()
    assert again == pytest.approx(numbers, abs=1e-12)
