"""`--device 0,1` or `cpu:2`: one command, several processes on this machine, as torchrun would start them."""

from __future__ import annotations

import logging
import os
import re
import sys
import uuid
from dataclasses import dataclass

import click

from detr.errors import UsageError

_MOST = 1000
PATIENCE = "600"  # seconds that processes have to finish a step and save, after a signal
_LOGGERS = ("torch.distributed.elastic", "torch.distributed.run", "torch.distributed.launcher")


@dataclass(frozen=True)
class Several:
    """Processes to start."""

    kind: str  # what each is to be told as its --device
    gpus: tuple[int, ...]  # one for each process, none on a CPU
    count: int


def several(device: str) -> Several | None:
    """What `--device` asks for, if that is more than one process: `0,1`, `cuda:0,cuda:1`, `cpu:2`.

    UsageError for a list that makes no sense, or a GPU that isn't there.
    """
    if found := re.fullmatch(r"cpu:(\d+)", device):
        count = int(found[1])
        if not 0 < count <= _MOST:
            raise UsageError(f"--device {device}: expected a number of processes up to {_MOST:,}, such as cpu:2")
        return Several("cpu", (), count) if count > 1 else None
    if "," not in device:
        return None
    words = [word.strip() for word in device.split(",")]
    if not all(re.fullmatch(r"(cuda:)?\d+", word) for word in words):
        raise UsageError(f"--device {device}: expected GPUs such as 0,1, or cpu:2 for two processes on the CPU")
    gpus = tuple(int(word.removeprefix("cuda:")) for word in words)
    if len(set(gpus)) < len(gpus):
        raise UsageError(f"--device {device}: a GPU stands there twice; each process needs its own")
    from detr.runtime.device import choose_device

    for gpu in gpus:
        choose_device(f"cuda:{gpu}")
    return Several("cuda", gpus, len(gpus)) if len(gpus) > 1 else None


def leave_to_processes(device: str) -> None:
    """If `device` names several, run this command in as many processes, and leave with what became of them.

    A SIGINT or SIGTERM is handed on to them; they have ten minutes to finish, and the exit code is 130 or 143.
    """
    wanted = several(device)
    if wanted is None:
        return
    if "WORLD_SIZE" in os.environ:
        raise UsageError(f"--device {device}: the processes are started already (torchrun?); leave --device out")
    click.get_current_context().exit(run(wanted, with_device(sys.argv[1:], wanted.kind)))


def run(wanted: Several, words: list[str]) -> int:
    """`detr WORDS` in all the processes -> the exit code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.update(_surroundings(wanted))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=wanted.count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "detr", *words)
    except ChildFailedError as problem:
        return _exit_code([failure.exitcode for failure in problem.failures.values()])
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


def with_device(words: list[str], kind: str) -> list[str]:
    """The command's words with another --device."""
    result, skipped = [], False
    for word in words:
        if skipped:
            skipped = False
        elif word == "--device":
            skipped = True
        elif not word.startswith("--device="):
            result.append(word)
    return [result[0], "--device", kind, *result[1:]]


def _surroundings(wanted: Several) -> dict[str, str]:
    threads = 1 if wanted.gpus else max(1, (os.cpu_count() or 1) // wanted.count)
    about = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": PATIENCE, "OMP_NUM_THREADS": str(threads)}
    about = {name: os.environ.get(name, value) for name, value in about.items()}
    if wanted.gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = seen.split(",") if seen else [str(gpu) for gpu in range(max(wanted.gpus) + 1)]
        about["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in wanted.gpus)
    return about


def _exit_code(codes: list[int]) -> int:
    """Of those that failed: wrong usage, which all saw alike, before what came of it in the others."""
    first = 2 if 2 in codes else codes[0]
    return 128 - first if first < 0 else first
