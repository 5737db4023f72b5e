import os
import signal
import subprocess
import sys
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
    """Starts `detr train` of a small recipe in two processes on the CPU."""
    folder = tmp_path_factory.mktemp("launched")
    data = make_shapes(folder / "data", images=8, val_images=2, size=64, video=False)
    (folder / "small.yaml").write_text(small_recipe_text)

    def start(*words, by=()):
        program = [sys.executable, *by, "-m", "detr", "train", folder / "small.yaml"]
        return subprocess.Popen(
            [*map(str, program), "--data", data, "--project", folder, *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return folder, start


def until_it_trains(process, out):
    until = time.monotonic() + 120
    while not ((out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.1)


def children_of(process):
    """Of a process that has torchrun in it: those that train."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in found.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found through /proc")
def test_torchrun_starts_anew_what_lost_a_process_and_the_end_is_the_same(small):
    folder, start = small
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    words = ["--epochs", "3", "--workers", "0", "--save-every", "1", "--device", "cpu"]
    with start("--name", "killed", *words, by=torchrun) as process:
        until_it_trains(process, folder / "train" / "killed")
        os.kill(children_of(process)[-1], signal.SIGKILL)
        said, problems = process.communicate(timeout=240)
    assert process.returncode == 0 and "going on after epoch" in said, problems
    with start("--name", "whole", *words, by=torchrun) as process:
        _, problems = process.communicate(timeout=240)
    assert process.returncode == 0, problems
    for name in ("resume.safetensors", "best.safetensors", "last.safetensors"):
        one, other = (folder / "train" / run / name for run in ("killed", "whole"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.skipif(os.name == "nt", reason="signals of other systems")
def test_a_signal_is_handed_on_and_the_code_is_that_of_one_process(small):
    folder, start = small
    out = folder / "train" / "stopped"
    process = start("--name", "stopped", "--device", "cpu:2", "--epochs", "500", "--workers", "1")
    with process:
        until_it_trains(process, out)
        process.send_signal(signal.SIGTERM)
        said, problems = process.communicate(timeout=120)
    assert process.returncode == 143, problems
    assert "device cpu, 2 processes" in said and f"go on with: detr train --resume {out}" in said
    assert "Traceback" not in problems and "Error" not in problems, problems
    assert weights.read(out / "resume.safetensors").metadata["circumstances"]["processes"] == 2


def test_what_is_wrong_in_each_process_gives_its_exit_code(small):
    _, start = small
    with start("--name", "wrong", "--device", "cpu:2", "train.batch=3") as process:
        _, problems = process.communicate(timeout=120)
    assert process.returncode == 2 and "a batch of 3 cannot be shared by 2 processes" in problems
    assert "Traceback" not in problems
