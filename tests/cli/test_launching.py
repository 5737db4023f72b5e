import os
import signal
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from detr import weights
from detr.cli.launching import Several, several, with_device
from detr.cli.train import command
from detr.data.shapes import make_shapes
from detr.errors import UsageError
from tests import programs

RESTARTED = Path(__file__).parent / "restarted.py"


def test_a_device_alone_starts_nothing():
    assert [several(text) for text in ("auto", "cpu", "cuda", "0", "cuda:1", "mps", "cpu:1")] == [None] * 7


def test_lists_and_counts_name_processes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert several("cpu:3") == Several("cpu", (), 3)
    assert several("0,2") == several("cuda:0, cuda:2") == Several("cuda", (0, 2), 2)
    with pytest.raises(UsageError, match="there are 4 GPUs"):
        several("0,4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu:0", "expected a number of processes"),
        ("cpu:99999999999", "up to 1,000"),
        ("cpu,cpu", "cpu:2 for two processes"),
        ("0,cpu", "expected GPUs such as 0,1"),
        ("0,", "expected GPUs such as 0,1"),
        ("1,1", "stands there twice"),
        ("0,1", "no GPU|without CUDA"),
    ],
)
def test_lists_that_make_no_sense_are_refused(text, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message):
        several(text)


def test_processes_are_not_started_within_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = CliRunner().invoke(command, ["rtdetr-r18", "--data", str(tmp_path), "--device", "cpu:2"])
    assert isinstance(said.exception, UsageError) and "started already" in str(said.exception)


@pytest.mark.parametrize("given", [["--device", "0,1"], ["--device=0,1"]])
def test_each_process_is_told_its_kind_of_device(given):
    words = ["train", "rtdetr-r18", *given, "--data", "x", "a=b"]
    assert with_device(words, "cuda") == ["train", "--device", "cuda", "rtdetr-r18", "--data", "x", "a=b"]


@pytest.fixture(scope="module")
def small(small_recipe_text, tmp_path_factory):
    """A folder, and what is typed to train a small recipe there."""
    folder = tmp_path_factory.mktemp("launched")
    data = make_shapes(folder / "data", images=8, val_images=2, size=64, video=False)
    (folder / "small.yaml").write_text(small_recipe_text)
    return folder, ["train", folder / "small.yaml", "--data", data, "--project", folder, "--log", "none"]


def until_it_trains(program, out):
    until = time.monotonic() + 120
    while not ((out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size):
        assert program.running() and time.monotonic() < until, program.said()
        time.sleep(0.1)


def children_of(program):
    """Of a process that has torchrun in it: those that train."""
    found = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    return [int(number) for number in found.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found through /proc")
def test_torchrun_starts_anew_what_lost_a_process_and_the_end_is_the_same(small):
    folder, words = small
    words = [*words, "--epochs", "3", "--workers", "0", "--save-every", "1", "--device", "cpu"]
    with programs.started(RESTARTED, *words, "--name", "killed") as program:
        until_it_trains(program, folder / "train" / "killed")
        os.kill(children_of(program)[-1], signal.SIGKILL)
        done = program.end()
    assert done.returncode == 0 and "going on after epoch" in done.stdout, done.stderr
    for whole in programs.run_team("-m", "detr", *words, "--name", "whole", size=2):
        assert whole.returncode == 0, whole.stderr
    for name in ("resume.safetensors", "best.safetensors", "last.safetensors"):
        one, other = (folder / "train" / run / name for run in ("killed", "whole"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.skipif(os.name == "nt", reason="signals of other systems")
def test_a_signal_is_handed_on_and_the_code_is_that_of_one_process(small):
    folder, words = small
    out = folder / "train" / "stopped"
    options = ["--name", "stopped", "--device", "cpu:2", "--epochs", "500", "--workers", "1"]
    with programs.started("-m", "detr", *words, *options) as program:
        until_it_trains(program, out)
        program.send_signal(signal.SIGTERM)
        done = program.end()
    assert done.returncode == 143, done.stderr
    assert "device cpu, 2 processes" in done.stdout and f"go on with: detr train --resume {out}" in done.stdout
    assert "Traceback" not in done.stderr and "Error" not in done.stderr, done.stderr
    assert weights.read(out / "resume.safetensors").metadata["circumstances"]["processes"] == 2


def test_what_is_wrong_is_found_by_each_process(small):
    _, words = small
    for done in programs.run_team("-m", "detr", *words, "--name", "wrong", "train.batch=3", size=2):
        assert done.returncode == 2 and "a batch of 3 cannot be shared by 2 processes" in done.stderr


def test_what_is_wrong_in_each_process_gives_its_exit_code():
    code = "import sys; from detr.cli.launching import Several, run; sys.exit(run(Several('cpu', (), 2), ['trian']))"
    done = programs.run("-c", code)
    assert done.returncode == 2 and "no such command 'trian'" in done.stderr
    assert "Traceback" not in done.stderr
