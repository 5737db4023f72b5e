"""A recipe small enough to be trained within a test, and what all commands say with --json."""

import json
import re

import pytest

import detr.cli
from detr import cli

# How the same thing is called nowhere else, and what it is called.
OTHER_WORDS = {
    "out": "folder or file", "path": "file", "dir": "folder", "ap": "AP", "ap50": "AP50", "score": "confidence",
    "label": "class", "bbox": "box", "pts": "time", "megabytes": "bytes", "memory_mb": "memory_bytes",
    "milliseconds": "..._ms", "duration": "seconds", "elapsed": "seconds", "errors": "failures", "best": "AP",
}  # fmt: skip
OF_USERS = {"metadata", "counts", "names", "weights"}  # in which keys are names of things: classes, files, releases
IS_A = {"classes": list, "splits": dict, "notes": list, "failures": list, "box": dict, "input": dict, "folder": str}
ROWS = {"classes": {"index", "id", "name"}, "failures": {"source", "error"}}


@pytest.fixture(scope="session")
def as_told():
    """Reads what is on stdout with --json: one line with one object, in the words of docs/json.md."""

    def read(stdout):
        [line] = stdout.splitlines()
        tree = json.loads(line, parse_constant=pytest.fail)
        assert isinstance(tree, dict)
        _look_at(tree)
        return tree

    return read


def _look_at(tree):
    for key, value in tree.items():
        assert key not in OTHER_WORDS, f"{key!r} is called {OTHER_WORDS[key]} elsewhere"
        assert re.fullmatch("[a-z][a-z0-9_]*|A[PR][a-z0-9]*|PyTorch", key), key
        assert value is None or isinstance(value, IS_A.get(key, object)), key
        if key.startswith(("AP", "AR")) and not isinstance(value, dict):
            assert value is None or 0 <= value <= 1, f"{key} {value} is no share"
        if key == "seconds" or key.endswith(("_ms", "bytes")):
            assert value is None or isinstance(value, (int, float)), key
        rows = value if isinstance(value, list) else [value]
        for row in rows:
            if isinstance(row, dict) and key not in OF_USERS:
                assert ROWS.get(key, set()) <= set(row)
                _look_at(row)


@pytest.fixture(scope="session")
def small_recipe_text():
    return """
model:
  version: 2
  num_queries: 8
  num_denoising: 0
  backbone: {depth: 10, width: 8}
  encoder: {channels: 16, heads: 2, hidden: 16, expansion: 0.5, depth: 0.34}
  decoder: {channels: 16, heads: 2, hidden: 16, num_layers: 1}
  input: {height: 64, width: 64}
train: {epochs: 1, batch: 2, scales: [64, 96]}
"""


@pytest.fixture
def detr_program(tmp_path, monkeypatch, capsys):
    """Run `detr ...` in an empty folder -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def run(*words):
        monkeypatch.setattr(cli.sys, "argv", ["detr", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            detr.cli.main()
        return left.value.code, *capsys.readouterr()

    return run
