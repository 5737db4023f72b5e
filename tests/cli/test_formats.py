"""One data set in three formats: whatever takes --data takes them all, with the same numbers."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from detr.cli.benchmark import _dataset
from detr.cli.val import command as val
from detr.data.conversion import convert
from detr.data.opening import open_for_training
from detr.data.shapes import make_shapes
from detr.export.proven import calibration_of


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    found = {"coco": make_shapes(root / "coco", images=4, val_images=6, size=96, seed=3, video=False)}
    convert(found["coco"], "yolo", root / "yolo")
    convert(root / "yolo", "voc", root / "voc")
    return {**found, "yolo": root / "yolo" / "data.yaml", "voc": root / "voc"}


def run(command, *words):
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_training_sees_the_same_samples(sets, format):
    for ours, theirs in zip(open_for_training(sets["coco"]), open_for_training(sets[format]), strict=True):
        assert ours.classes.names == theirs.classes.names
        for index in range(len(ours)):
            one, other = ours[index], theirs[index]
            assert one.image.equal(other.image) and one.labels.equal(other.labels)
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4 if format == "yolo" else 0.5)


def test_val_gives_the_same_numbers_and_its_predictions_do_so_again(sets, tmp_path):
    found = {}
    for format in ("coco", "yolo"):
        file = tmp_path / f"{format}.json"
        words = [
            "--weights",
            "rtdetr-tiny",
            "--data",
            sets[format],
            "--workers",
            0,
            "--json",
            "--project",
            tmp_path / format,
        ]
        found[format] = json.loads(run(val, *words, "--save-json", file))["metrics"]
        again = json.loads(run(val, "--predictions", file, "--data", sets[format], "--json"))["metrics"]
        assert again == found[format]
    assert found["coco"]["AP"] > 0.3
    # What differs is crowds, which YOLO can't say.
    assert abs(found["yolo"]["AP"] - found["coco"]["AP"]) < 0.05


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_calibration_and_benchmarks_take_them_too(sets, format):
    assert calibration_of(str(sets[format])).indices == [0, 1, 2, 3]
    assert len(_dataset(sets[format], "val", None)) == 6
