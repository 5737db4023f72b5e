import json

import pytest
from click.testing import CliRunner

from detr.cli.models import command
from detr.models.presets import models


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path))


def test_every_model_is_listed_with_its_size_and_its_weights():
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(command, ["--json"]).output)}
    assert list(rows) == models()
    assert rows["rtdetr-r18"]["parameters"] == 20_184_464
    assert rows["rtdetr-r18"]["ap"] == 46.4
    assert rows["rtdetr-r18"]["weights"] == {"rtdetr-r18": "download", "rtdetr-r18-obj365": "download"}


def test_the_table_has_a_line_for_each_model():
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()[1:]] == models()
