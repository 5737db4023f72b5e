"""Ctrl-C and SIGTERM end `detr train` with the documented codes, and a state to go on from."""

import json
import os
from pathlib import Path

import pytest

from detr import weights
from detr.data.shapes import make_shapes
from tests import programs

PROGRAM = Path(__file__).parent / "signalled.py"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are forked")


@pytest.fixture(scope="module")
def trainings(small_recipe_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    data = make_shapes(folder / "data", images=8, val_images=2, size=64, video=False)
    (folder / "small.yaml").write_text(small_recipe_text.replace("epochs: 1,", "epochs: 9,"))
    done = programs.run(PROGRAM, folder / "small.yaml", data, folder)
    assert done.returncode == 0, done.stderr
    return folder / "train", json.loads(done.stdout)


@pytest.mark.parametrize(("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_signal_ends_training_with_its_code_and_a_saved_state(trainings, name, code, word):
    folder, ends = trainings
    found, said = ends[name]
    assert (found, said.splitlines()[-1]) == (code, word), said
    steps = weights.read(folder / name / "resume.safetensors").metadata["resume"]["step"]
    assert 1 <= steps < 36
    assert f"stopped after step {steps}; go on with: detr train --resume {folder / name}" in said
    assert not [path.name for path in (folder / name).iterdir() if "part" in path.name or path.name == ".training"]
