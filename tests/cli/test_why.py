"""`detr val --why` and what `detr predict` does with its thresholds."""

import json
import re

import pytest
from click.testing import CliRunner

from detr.cli.predict import command as predict
from detr.cli.val import command as val
from detr.data.shapes import make_shapes
from detr.errors import UsageError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("why") / "set", images=2, val_images=4, size=128, video=False)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("runs")
    words = ["--weights", "rtdetr-tiny", "--data", data, "--workers", 0, "--project", folder, "--name", "why", "--why"]
    done = CliRunner().invoke(val, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0
    return folder / "val" / "why", done.output


def test_causes_are_told_and_a_page_report_and_thresholds_written(run):
    folder, said = run
    assert "What would each mended cause add?" in said and "were lost: " in said
    told = json.loads((folder / "why.json").read_text())
    assert set(told["causes"]) == {"class", "place", "both", "duplicate", "background", "missed"}
    assert told["queries"]["queries"] > 0 and told["queries"]["why_missed"] is not None
    assert (folder / "thresholds.json").is_file()


def test_the_page_holds_all_it_shows(run):
    text = (run[0] / "why.html").read_text()
    assert "http" not in text and "<script" not in text
    sources = re.findall(r'src="([^"]{5})', text)
    assert len(sources) >= 6 and set(sources) == {"data:"}


def test_predictions_tell_the_same_but_for_what_needs_the_model(run, data, tmp_path):
    folder, _ = run
    words = ["--predictions", folder / "predictions.json", "--data", data, "--project", tmp_path, "--why"]
    done = CliRunner().invoke(val, [*map(str, words)], catch_exceptions=False)
    assert "not known: predictions are boxes only" in done.output
    told, before = (json.loads((path / "why.json").read_text()) for path in (tmp_path / "val" / "val", folder))
    assert "where queries started" in told["queries"]["left_out"]
    assert told["causes"] == before["causes"] and told["classes"] == before["classes"]


def test_without_images_the_pictures_are_left_out_and_said_to_be(run, data, tmp_path):
    file = tmp_path / "instances.json"
    file.write_bytes(next((data / "annotations").glob("*val*.json")).read_bytes())
    words = ["--predictions", run[0] / "predictions.json", "--data", file, "--project", tmp_path, "--why"]
    CliRunner().invoke(val, [*map(str, words)], catch_exceptions=False)
    assert "Left out: the images were not found" in (tmp_path / "val" / "val" / "why.html").read_text()


def test_predict_takes_the_thresholds(run, data, tmp_path):
    folder, _ = run
    thresholds = tmp_path / "thresholds.json"
    known = json.loads((folder / "thresholds.json").read_text())["thresholds"]
    first = next(iter(known))
    thresholds.write_text(json.dumps({"thresholds": {first: 0.0}, "otherwise": 1.0}))
    source = next((data / "images" / "val").iterdir())
    words = [source, "--conf", thresholds, "--save-json", "--no-save", "--project", tmp_path, "--quiet"]
    CliRunner().invoke(predict, [*map(str, words)], catch_exceptions=False)
    rows = json.loads((tmp_path / "predict" / "predict" / "predictions.json").read_text())
    assert rows and len({row["category_id"] for row in rows}) == 1
    for more, said in (([], "no such file"), (["--track"], "one score, the same for all classes")):
        with pytest.raises(UsageError, match=said):
            CliRunner().invoke(predict, [str(source), "--conf", "absent.json", *more], catch_exceptions=False)


def test_without_matplotlib_the_line_to_type_is_given(data, monkeypatch):
    monkeypatch.setattr("detr.extras.is_installed", lambda name: False)
    with pytest.raises(UsageError, match=r"pip install 'detr-toolkit\[plots\]'"):
        CliRunner().invoke(val, ["--predictions", "x.json", "--data", str(data), "--why"], catch_exceptions=False)
