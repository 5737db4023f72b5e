"""`--device 0,1` or `cpu:2`: one command, several processes on this machine, as torchrun would start them."""

from __future__ import annotations

import os
import re
import socket
import sys
from dataclasses import dataclass

import click

from detr.cli.processes import PATIENCE, attended
from detr.errors import UsageError

_MOST = 1000


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

    A SIGINT or SIGTERM is handed on to them; they have two minutes to finish, and the exit code is 130 or 143.
    """
    wanted = several(device)
    if wanted is None:
        return
    if "WORLD_SIZE" in os.environ:
        raise UsageError(f"--device {device}: the processes are started already (torchrun?); leave --device out")
    click.get_current_context().exit(run(wanted, with_device(sys.argv[1:], wanted.kind)))


def run(wanted: Several, words: list[str]) -> int:
    """`detr WORDS` in all the processes -> the exit code."""
    from torch.distributed import TCPStore

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    # The place where they meet is here, and not in one of them: no port is free by the time that it is taken.
    place = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    about = {
        "MASTER_ADDR": place.host,
        "MASTER_PORT": str(place.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(wanted.count),
        "LOCAL_WORLD_SIZE": str(wanted.count),
        **_surroundings(wanted),
    }
    each = [{**about, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(wanted.count)]
    return attended(["-m", "detr.runtime.tied", *words], each, patience=_patience())


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


def _patience() -> float:
    """Seconds; as torchrun is told of them, too."""
    given = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "")
    if given and not given.isdecimal():
        raise UsageError(f"TORCH_ELASTIC_SHUTDOWN_TIMEOUT={given}: expected seconds, such as 240")
    return float(given) if given else PATIENCE


def _surroundings(wanted: Several) -> dict[str, str]:
    threads = 1 if wanted.gpus else max(1, (os.cpu_count() or 1) // wanted.count)
    about = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    if wanted.gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = seen.split(",") if seen else [str(gpu) for gpu in range(max(wanted.gpus) + 1)]
        about["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in wanted.gpus)
    return about
