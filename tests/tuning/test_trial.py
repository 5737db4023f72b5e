import json
import os
import subprocess
import sys
import time

import pytest

from detr.errors import InputError, UsageError
from detr.tuning import trial
from detr.tuning.trial import TrainingProcess

PROGRAM = """
import json, pathlib, sys, time
folder = pathlib.Path({folder!r})
folder.mkdir(parents=True, exist_ok=True)
for epoch, ap in enumerate({aps}, 1):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({{"event": "epoch", "step": epoch, "epoch": epoch, "AP": ap}}) + "\\n")
    time.sleep({pause})
(folder / "resume.safetensors").touch()
print({words!r}, file=sys.stderr)
sys.exit({code})
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A training of another program, which takes no time."""
    monkeypatch.setattr(trial, "_LOOK_EVERY", 0.01)
    begin = subprocess.Popen

    def start(aps=(), pause=0.0, code=0, words="done"):
        text = PROGRAM.format(
            folder=str(tmp_path / "train" / "one"), aps=list(aps), pause=pause, code=code, words=words
        )
        monkeypatch.setattr(
            trial.subprocess, "Popen", lambda command, **how: begin([sys.executable, "-c", text], **how)
        )
        return TrainingProcess(["recipe"], project=tmp_path, name="one")

    return start


def test_epochs_come_as_they_are_evaluated(program):
    assert list(program([0.1, 0.3, None, 0.2]).epochs()) == [(1, 0.1), (2, 0.3), (4, 0.2)]


def test_what_a_failed_training_said_last_is_the_reason(program):
    with pytest.raises(InputError, match=r"no room \(all it said: .*one\.log\)"):
        list(program(code=1, words="error: no room").epochs())
    with pytest.raises(UsageError, match="no such data"):
        list(program(code=2, words="error: no such data").epochs())


def test_stopping_ends_the_process_and_removes_its_states(program, tmp_path):
    training = program([0.1], pause=60.0)
    assert next(training.epochs()) == (1, 0.1)
    (tmp_path / "train" / "one" / "resume.safetensors").touch()
    began = time.monotonic()
    training.stop()
    assert time.monotonic() - began < 30 and not (tmp_path / "train" / "one" / "resume.safetensors").exists()
    assert json.loads((tmp_path / "train" / "one" / "metrics.jsonl").read_text())["AP"] == 0.1
    training.stop()  # twice does no harm


def test_a_training_that_stands_still_is_given_up(program, monkeypatch):
    monkeypatch.setattr(trial, "_LONGEST_SILENCE", 0.2)
    training = program(pause=60.0, aps=[0.1])
    with pytest.raises(InputError, match=r"^it stood still for 0 minutes: it said nothing \(all"):
        list(training.epochs())
    training.stop()


TIED = """
import subprocess, sys
child = "import time; from detr.runtime import tied; tied.end_with_stdin(); print('on', flush=True); time.sleep(60)"
held = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=sys.stdout)
print(held.pid, flush=True)
held.wait()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of other systems")
def test_a_training_ends_with_a_search_that_is_killed(tmp_path):
    search = subprocess.Popen([sys.executable, "-c", TIED], stdout=subprocess.PIPE, text=True)
    with search.stdout as said:
        assert sorted([said.readline(), said.readline()])[1] == "on\n"
        search.kill()
        assert said.read() == ""  # to its end: nobody holds the pipe any longer
    search.wait()
