import json
import re

import pytest
from click.testing import CliRunner
from PIL import Image

from detr.cli.doctor import command
from detr.data.shapes import make_shapes


def run(*words):
    result = CliRunner().invoke(command, [str(word) for word in words])
    code = getattr(result.exception, "exit_code", result.exit_code)
    return code, result.output, str(result.exception or "")


@pytest.fixture
def made(tmp_path):
    return make_shapes(tmp_path / "set", images=6, val_images=3, size=64, seed=3, video=False)


@pytest.fixture
def sick(made):
    """A picture of train is in val too, and one of train is damaged."""
    pictures = sorted((made / "images" / "train").iterdir())
    target = sorted((made / "images" / "val").iterdir())[0]
    target.write_bytes(pictures[0].read_bytes())
    pictures[1].write_bytes(b"<html>")
    return made


def test_a_page_shows_what_was_found(sick, tmp_path):
    code, output, _ = run(sick, "--project", tmp_path / "runs")
    assert code == 0
    assert "error: train: 1 image cannot be read" in output and "error: val: 1 image is in another split" in output
    assert "advice: queries: " in output and "train: 6 images" in output
    page = tmp_path / "runs" / "doctor" / "doctor" / "index.html"
    assert f"look at {page}" in output
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="([^"]*)"', text)
    assert any("leak-val-1.jpg" in file for file in pictures) and any("sample" in file for file in pictures)
    for file in pictures:
        with Image.open(page.parent / file) as picture:
            picture.load()
    assert "looks like HTML" in text


def test_strict_fails_for_ci_and_json_is_json(sick, made, tmp_path):
    code, output, error = run(sick, "--strict", "--no-page", "--json")
    assert code == 1 and "kinds of errors and warnings" in error
    tree = json.loads(output)
    assert tree["healthy"] is False and tree["page"] is None
    assert [row["kind"] for row in tree["findings"]][:2] == ["unreadable", "leak"]
    assert tree["findings"][0]["images"][0]["image"].endswith("000001.jpg")


def test_a_corrected_copy_passes_where_the_set_did_not(sick, tmp_path):
    code, output, _ = run(sick, "--no-page", "--fix", tmp_path / "fixed")
    assert code == 0 and "fixed: train: 1 image that can't be read left out" in output
    kinds = {row["kind"] for row in json.loads(run(tmp_path / "fixed", "--no-page", "--json")[1])["findings"]}
    assert not kinds & {"unreadable", "leak"}


def test_the_plan_is_that_of_the_model(made):
    _, output, _ = run(made, "--no-page", "--model", "deimv2-atto", "--imgsz", 416)
    assert "deimv2-atto has 100 queries" in output and "at 416 x 416" in output
    code, _, error = run(made, "--no-page", "--model", "rtdetr-r19")
    assert code == 2 and "did you mean" in error


def test_without_data_the_machine_is_examined():
    code, output, _ = run()
    assert code == 0
    for word in ("torch ", "Triton", "CUDA", "extra export", "libx264", "JPEG"):
        assert word in output
    assert json.loads(run("--json")[1])["lines"][0]["about"] == "detr"
    code, _, error = run("--strict")
    assert code == 2 and "detr doctor DATA" in error
