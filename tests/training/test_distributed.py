import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detr import weights
from detr.errors import UsageError
from detr.runtime.device import choose_device
from detr.runtime.distributed import Team, joined
from detr.runtime.interruption import Interruption
from detr.training.run import Run
from tests import programs

PROGRAM = Path(__file__).parent / "two_processes.py"


@pytest.fixture
def together(small_shapes):
    """Runs the program in `size` processes and returns the folder they wrote to."""

    def run(out, size, mode):
        for done in programs.run_team(PROGRAM, small_shapes, out, mode, size=size):
            assert done.returncode == 0, done.stderr
        return out

    return run


def test_alone_everything_is_ones_own():
    team = Team(0, 1, torch.device("cpu"))
    assert team.leads
    assert (team.total(3), team.largest(2), team.agreed(lambda: "x")) == (3, 2, "x")
    with joined(torch.device("cpu")) as found:
        assert found == team


def test_a_signal_in_another_process_is_heard_of_a_step_later_without_waiting(monkeypatch):
    """The other process is stood for by what it would say; only what is asked for is waited for."""
    said, waited = iter([0.0, 15.0, 15.0, 15.0]), []

    def all_reduce(shared, operation, async_op):
        shared.fill_(max(float(shared), next(said)))
        return SimpleNamespace(wait=lambda: waited.append(float(shared)))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    run = SimpleNamespace(team=Team(0, 2, torch.device("cpu")), interruption=Interruption({}), asked=None)
    steps = [(Run.interrupted_before(run), list(waited)) for _ in range(3)]
    assert steps == [(0, []), (0, [0.0]), (15, [0.0, 15.0])]
    assert Run.interrupted(run) == 15  # at an epoch's end all of it


def test_two_processes_give_the_gradient_of_the_whole_batch(together, tmp_path):
    one = torch.load(together(tmp_path / "one", 1, "gradient") / "gradient.pt", weights_only=True)
    two = torch.load(together(tmp_path / "two", 2, "gradient") / "gradient.pt", weights_only=True)
    assert one.keys() == two.keys() and len(one) > 20
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-9)


def test_two_processes_train_one_network_even_if_one_has_no_boxes(together, tmp_path):
    out = together(tmp_path / "run", 2, "train")
    said = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert said[0]["digest"] == said[1]["digest"]
    assert said[0]["steps"] == said[1]["steps"] > 0
    assert len(said[0]["lines"]) > 3 and not said[1]["lines"]
    assert weights.read(out / "last.safetensors").metadata["epoch"] == 1


def test_both_processes_leave_out_the_step_that_is_broken_in_one(together, tmp_path):
    out = together(tmp_path / "run", 2, "broken")
    said = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert said[0]["digest"] == said[1]["digest"]
    assert said[0]["skipped"] == said[1]["skipped"] == 2  # of three steps
    lines = [line for line in said[0]["lines"] if "left out" in line]
    assert len(lines) == 2 and all("not finite first in encoder.bottom_up.0" in line for line in lines)
    assert "diverged-1.safetensors" in lines[0] and (out / "diverged-1.safetensors").is_file()


@pytest.mark.skipif(os.name == "nt", reason="processes are forked")
def test_processes_started_anew_never_take_a_dead_one_for_its_successor():
    done = programs.run(Path(__file__).parent / "started_anew.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0", "0", "0"], done.stderr


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "xla"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UsageError, match="expected auto, cpu, cuda"):
        choose_device(name)


def test_a_gpu_has_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(name)) for name in ("auto", "cuda", "1")] == ["cuda:0", "cuda:0", "cuda:1"]


def test_cuda_where_there_is_none_comes_with_a_hint(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    for name in ("cuda", "0", "cuda:1"):
        with pytest.raises(UsageError, match="use --device cpu"):
            choose_device(name)
