import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from detr import config
from detr.cli.models import command, model_rows
from detr.config import recipe_names
from detr.releases import RELEASES


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path))


def test_every_model_is_listed_with_its_size_and_its_weights():
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(command, ["--json"]).output)["models"]}
    assert set(rows) == set(recipe_names())
    row = rows["rtdetr-r18"]
    assert row["parameters"] == 20_184_464
    assert (row["AP"], row["AP50"], row["t4_ms"], row["published_gflops"]) == (0.464, 0.637, 4.6, 60)
    assert row["weights"] == {"rtdetr-r18": "download", "rtdetr-r18-obj365": "download"}
    assert rows["rtdetr-tiny"]["input"] == {"height": 320, "width": 320}
    assert rows["rtdetr-tiny"]["weights"] == {"rtdetr-tiny": "embedded"}


def test_what_we_count_is_near_what_the_authors_count():
    """They count a little differently: other folding, and the attention of a vision transformer is left out."""
    with_transformer = {"deimv2-s", "deimv2-m", "deimv2-l", "deimv2-x"}
    for row in model_rows():
        if row["name"] in with_transformer:
            assert row["published_gflops"] < row["gflops"] < 2.1 * row["published_gflops"]
        elif row["published_gflops"]:
            assert row["gflops"] == pytest.approx(row["published_gflops"], rel=0.07), row["name"]


def test_the_table_has_a_line_for_each_model_in_the_order_of_the_releases():
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.output.splitlines()]
    assert listed == ["NAME", *(name for name in RELEASES if name in recipe_names())]


def test_a_model_that_was_never_measured_says_what_to_run(monkeypatch):
    monkeypatch.setattr(config, "recipe_names", lambda: ["rtdetr-new"])
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert "lacks rtdetr-new; run: python tools/write_models_table.py" in str(result.exception)


def test_it_answers_without_torch():
    program = (
        "import sys; from click.testing import CliRunner; from detr.cli.models import command; "
        "assert CliRunner().invoke(command, []).exit_code == 0; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
