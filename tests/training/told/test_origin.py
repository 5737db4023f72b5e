import json
import shutil
import subprocess
import sys

import pytest

from detr.training.told.origin import FILE, git_state
from detr.training.train import train


def lines(folder):
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


def test_a_run_says_how_it_was_begun_and_gone_on_with(recipe_with, small_sets, tmp_path, plain, monkeypatch):
    settings = {**small_sets, "out": tmp_path, "device": "cpu", "workers": 0, "say": lambda line: None}
    train(recipe_with(epochs=1), **settings, data="some/set")
    monkeypatch.setattr(sys, "argv", ["detr", "train", "--resume", "RUN"])
    train(recipe_with(epochs=2), **settings, resume=True)
    first, second = lines(tmp_path)
    assert (first["since_step"], first["data"], first["seed"]) == (0, "some/set", 0)
    assert (second["since_step"], second["command"][1:]) == (3, ["train", "--resume", "RUN"])
    assert len(first["train_data"]) == 64 and first["train_data"] == second["train_data"]
    assert first["machine"]["torch"] and first["PyTorch"]
    train(recipe_with(epochs=1), **settings)
    assert [line["since_step"] for line in lines(tmp_path)] == [0]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_and_what_differs_from_it_are_told(tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "model.py").write_text("one")
    git("add", "model.py")
    git("commit", "-q", "-m", "first")
    clean = git_state(tmp_path)
    assert len(clean["commit"]) == 40 and clean["changed"] == []
    (tmp_path / "model.py").write_text("two")
    assert git_state(tmp_path) == {"commit": clean["commit"], "changed": ["model.py"]}


def test_outside_of_a_repository_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) is None
