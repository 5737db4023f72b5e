"""--slice, --overlap and --tiles-only as typed."""

import json

import pytest
from PIL import Image

from detr.data.shapes import make_shapes


def test_predict_slices(tmp_path, detr_program):
    Image.new("RGB", (200, 90), (200, 30, 40)).save(tmp_path / "a.png")
    words = ["--slice", "64,96", "--overlap", "0.3", "--tiles-only", "--imgsz", "64", "--batch", "3", "--conf", "0"]
    code, out, err = detr_program("predict", "a.png", "--save-json", "--max-det", "9", *words)
    assert (code, err) == (0, "") and "9 detections" in out
    rows = json.loads((tmp_path / "runs" / "predict" / "predict" / "predictions.json").read_text())
    assert len(rows) == 9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--overlap", "0.3"], "--overlap is for tiles; say how large they are with --slice"),
        (["--tiles-only"], "--tiles-only is for tiles"),
        (["--slice", "much"], "--slice much: expected a side such as 640"),
        (["--slice", "1,2,3"], "a height and a width"),
        (["--slice", "64", "--overlap", "1"], "overlap 1.0: expected a share of the tile from 0 to 0.8"),
        (["--slice", "8"], "expected tiles of 32 pixels or more"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, detr_program, words, said):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    code, _, err = detr_program("predict", "a.png", *words)
    assert code == 2 and said in err
    assert not (tmp_path / "runs").exists()


def test_val_slices_and_says_so(tmp_path, detr_program):
    small_shapes = make_shapes(tmp_path / "shapes", images=1, val_images=2, size=64, video=False)
    words = ["--imgsz", "64", "--slice", "40", "--overlap", "0.3", "--workers", "0", "--name", "tiles"]
    code, _, _ = detr_program("val", "--weights", "rtdetr-tiny", "--data", small_shapes, *words)
    assert code == 0
    run = json.loads((tmp_path / "runs" / "val" / "tiles" / "metrics.json").read_text())["run"]
    assert run["slicing"] == {"height": 40, "width": 40, "overlap": 0.3, "whole": True, "batch": 8}


def test_predictions_cannot_be_sliced(tmp_path, detr_program):
    code, _, err = detr_program("val", "--predictions", "a.json", "--data", "b.json", "--slice", "64")
    assert code == 2 and "--slice is for a model" in err
