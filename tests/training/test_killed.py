"""Wherever a training is killed, what is gone on with ends in the bytes of one that was never stopped."""

import json
import os
import signal
from pathlib import Path

import pytest

from detr.training.told.journal import read
from tests import programs

PROGRAM = Path(__file__).parent / "killed.py"
FILES = ("best.safetensors", "last.safetensors", "resume.safetensors", "recipe.yaml")
CASES = ["within an epoch", "in the midst of writing a state", "between two renames", "again and again"]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are forked")


@pytest.fixture(scope="module")
def trainings(small_shapes, tmp_path_factory):
    """The folder of all trainings, and how each attempt of them ended."""
    out = tmp_path_factory.mktemp("killed")
    done = programs.run(PROGRAM, small_shapes, out, "whole", *CASES)
    assert done.returncode == 0, done.stderr
    return out, json.loads((out / "ends.json").read_text()), done.stderr


def untimed(folder):
    rows = read(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_is_killed_ends_in_the_same_bytes(trainings, case):
    out, ends, said = trainings
    whole, parts = out / "whole", out / case.replace(" ", "-")
    assert ends["whole"] == [0]
    assert ends[case] == [-signal.SIGKILL] * (len(ends[case]) - 1) + [0], said
    for name in FILES:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    assert untimed(parts) == untimed(whole)
    left = {path.name for path in parts.iterdir()} - {path.name for path in whole.iterdir()}
    assert not left
