import json

import pytest
from click.testing import CliRunner

from detr.cli.models import command
from detr.models import presets


@pytest.fixture(autouse=True)
def two_models(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path))
    monkeypatch.setattr(presets, "models", lambda: ["rtdetr-r18", "rtdetr-tiny"])


def test_every_model_is_listed_with_its_size_and_its_weights():
    row, tiny = json.loads(CliRunner().invoke(command, ["--json"]).output)
    assert (row["name"], tiny["name"]) == ("rtdetr-r18", "rtdetr-tiny")
    assert row["parameters"] == 20_184_464
    assert row["ap"] == 46.4
    assert row["weights"] == {"rtdetr-r18": "download", "rtdetr-r18-obj365": "download"}
    assert tiny["input"] == [320, 320]


def test_the_table_has_a_line_for_each_model():
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == ["NAME", "rtdetr-r18", "rtdetr-tiny"]
