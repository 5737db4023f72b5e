"""Python programs that start with torch imported: forked from a process that did so once, not from the tests' own."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr.cli import predict, train
from detr.data import opening
from detr.training import train as training

# Most of what programs import, which takes seconds.
IMPORTED = [module.__name__ for module in (opening, predict, train, training)]
METHOD = "spawn" if os.name == "nt" else "forkserver"

_context = multiprocessing.get_context(METHOD)
multiprocessing.set_forkserver_preload(IMPORTED)


@dataclass(frozen=True)
class Done:
    """What became of a program. Where a signal ended it, the code is that signal's number, negative."""

    returncode: int
    stdout: str
    stderr: str


class Program:
    """One that runs."""

    def __init__(self, process: Any, outputs: Sequence[Path]) -> None:
        self._process, self._outputs = process, outputs

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def said(self) -> tuple[str, str]:
        """stdout and stderr until now."""
        stdout, stderr = (path.read_text(encoding="utf-8") for path in self._outputs)
        return stdout, stderr

    def end(self, *, within: float = 250) -> Done:
        """Wait for it, so many seconds at most."""
        self._process.join(within)
        if self.running():
            raise TimeoutError(f"it runs after {within} s and said {self.said()}")
        return Done(self._process.exitcode, *self.said())


@contextmanager
def started(*words: object, **environment: str) -> Iterator[Program]:
    """`python WORDS` with these environment variables as well; it is killed at the end of the block.

    WORDS begin with the path of a program, `-m MODULE` or `-c CODE`. There is nothing on stdin, one thread, and Ctrl-C
    is heard even where the tests were started in a background that ignores it.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        for output in outputs:
            output.touch()
        about = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        process = _context.Process(target=_become, args=([str(word) for word in words], os.getcwd(), about, outputs))
        process.start()
        try:
            yield Program(process, outputs)
        finally:
            process.kill()
            process.join()
            process.close()


def run(*words: object, within: float = 250, **environment: str) -> Done:
    """`python WORDS` from its start to its end."""
    with started(*words, **environment) as program:
        return program.end(within=within)


def run_team(*words: object, size: int) -> list[Done]:
    """`python WORDS` in so many processes as torchrun would start them, each from its start to its end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": str(size)}
    with ExitStack() as stack:
        team = [
            stack.enter_context(started(*words, **about, RANK=str(rank), LOCAL_RANK=str(rank))) for rank in range(size)
        ]
        return [program.end() for program in team]


def _become(words: list[str], folder: str, environment: dict[str, str], outputs: Sequence[Path]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method(None, force=True)  # the one of any program; multiprocessing set ours

    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    raise SystemExit(_run(words))


def _run(words: list[str]) -> Any:
    """The exit code. As where an interpreter ends, nothing holds on to what the program left by an exception."""
    kind, rest = (words[0], words[1:]) if words[0] in ("-m", "-c") else ("", words)
    sys.argv = [kind if kind == "-c" else rest[0], *rest[1:]]
    try:
        if kind == "-c":
            exec(compile(rest[0], "-c", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(rest[0], run_name="__main__")
    except SystemExit as left:
        return left.code
    return 0
