"""`detr parity`: the ways agree, and one that doesn't is named."""

import json

import pytest
from click.testing import CliRunner

from detr.cli.parity import command
from detr.data.shapes import make_shapes
from detr.errors import InputError


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", images=1, val_images=6, size=160, video=False)


def run(*words):
    result = CliRunner().invoke(command, words)
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return rows, result


def test_val_prediction_and_an_exported_file_give_one_number(shapes):
    (told,), result = run("rtdetr-tiny", "--data", str(shapes), "--format", "torch-export", "--json")
    assert result.exit_code == 0, result.output
    rows = told["ways"]
    assert [row["way"] for row in rows] == ["training", "val", "predict --save-json", "torch-export"]
    assert rows[0]["allowed"] is None  # of another split
    assert rows[1]["AP"] > 0.1
    assert rows[2]["difference"] == pytest.approx(0, abs=1e-12)
    assert rows[3]["difference"] == pytest.approx(0, abs=1e-6)
    assert all(row["share"] == 1 and row["detections"] > 20 for row in rows[2:])
    assert "| predict --save-json |" in result.stderr


def test_what_training_recorded_counts_where_it_is_of_this_split(shapes):
    _, result = run("rtdetr-tiny", "--data", str(shapes), "--format", "none", "--recorded")
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith("more than allowed from detr val: training; is ")
    assert "DIFFERS" in result.stdout
