"""Kill trainings with SIGKILL at random moments, go on with them, and compare the end with that of one never stopped.

    python tools/kill_and_resume.py --kills 20 --out tools/results/kill_and_resume.md

Each is a training of the command line, of a toy detector on generated pictures, in processes of its own: one process
with and without loader processes, and two that torchrun starts, of which either all are killed or one; with
--max-restarts torchrun itself goes on with them. All files of weights and the last saved state must be equal to the
byte. Needs Linux (processes are found through /proc).
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import click
import torch

from detr.data.shapes import make_shapes
from detr.files import write_text
from detr.training.saved.checkpoint import BEST, LAST, RESUME
from detr.training.saved.generations import newest

RECIPE = """
model:
  version: 2
  num_queries: 8
  num_denoising: 4
  backbone: {depth: 10, width: 8}
  encoder: {channels: 16, heads: 2, hidden: 16, expansion: 0.5, depth: 0.34}
  decoder: {channels: 16, heads: 2, hidden: 16, num_layers: 2}
  input: {height: 64, width: 64}
train:
  epochs: 3
  batch: 2
  optimizer: {lr: 1.0e-3, backbone_lr: 1.0e-3}
  schedule: {warmup: 3}
  average: {decay: 0.9, warmup: 2}
"""
LONGEST = 1800  # seconds that anything may take, on a machine that does much else


@dataclass(frozen=True)
class Way:
    processes: int
    workers: int
    restarts: int = 0  # torchrun starts all processes anew, so often, when one is lost

    def command(self, *words: str) -> list[str]:
        python = [sys.executable, "-m"]
        if self.processes > 1:
            python += ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
            python += [f"--max-restarts={self.restarts}", "-m"]
        options = ["--workers", str(self.workers), "--device", "cpu", "--save-every", "1"]
        return [*python, "detr", "train", *words, *options]


@dataclass(frozen=True)
class Kill:
    way: Way
    who: str
    moment: str
    place: str
    seconds: float  # that going on took, to the end
    equal: bool


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file, too, after each.")
def main(kills: int, seed: int, out: Path | None) -> None:
    """Leave with 1 if any training ended in other bytes."""
    draw = random.Random(seed)
    ways = [Way(1, 0), Way(1, 2), Way(2, 0), Way(2, 0, restarts=1)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = make_shapes(place / "data", images=12, val_images=4, size=64, video=False)
        (place / "small.yaml").write_text(RECIPE, encoding="utf-8")
        words = [str(place / "small.yaml"), "--data", str(data), "--project", str(place)]
        whole = {way: _whole(way, words, place, f"whole-{number}") for number, way in enumerate(ways)}
        done = []
        for number in range(kills):
            way = ways[number % len(ways)]
            done.append(_one(way, words, place, f"killed-{number}", *whole[way], draw))
            click.echo(_row(number, done[-1]))
            if out is not None:  # each time: a run of hours may be cut short
                write_text(out, _table(done, f"--kills {kills} --seed {seed}"))
    click.echo(_table(done, "").splitlines()[-1])
    sys.exit(0 if all(kill.equal for kill in done) else 1)


def _whole(way: Way, words: list[str], place: Path, name: str) -> tuple[Path, int, float]:
    """The folder of a training that nobody stops, how many states it saves, and the median seconds between two."""
    run = place / "train" / name
    process = _started(way.command(*words, "--name", name))
    moments = list(_states(process, run))
    _finished(process)
    return run, len(moments), statistics.median(b - a for a, b in pairwise(moments))


def _one(
    way: Way, words: list[str], place: Path, name: str, whole: Path, states: int, pace: float, draw: random.Random
) -> Kill:
    """A training killed some time after one of its states, gone on with, and compared.

    Moments are counted in states, because a machine that has other work to do may need any time for a step.
    """
    run = place / "train" / name
    process = _started(way.command(*words, "--name", name))
    state, later = draw.randint(1, states - 1), draw.uniform(0, pace)
    for _ in islice(_states(process, run), state):
        pass
    time.sleep(later)
    victims = [process.pid, *_below(process.pid)] if way.processes > 1 else [process.pid]
    who = "all" if way.processes > 1 else "it"
    if len(victims) > 1 and (way.restarts or draw.random() < 0.5):
        victims, who = [draw.choice(victims[1:])], "one of the two"
    for victim in victims:
        _kill(victim)
    where = _where(run)
    begin = time.monotonic()
    if way.restarts:
        _finished(process)
        who += ", torchrun starts anew"
    else:
        process.communicate(timeout=LONGEST)
        _finished(_started(way.command("--resume", str(run))))
    seconds = time.monotonic() - begin
    equal = all((run / file).read_bytes() == (whole / file).read_bytes() for file in (BEST, LAST, RESUME))
    return Kill(way, who, f"{later:.3f} s after state {state} of {states}", where, seconds, equal)


def _started(command: list[str]) -> subprocess.Popen[str]:
    about = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=about, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finished(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=LONGEST)
    if process.returncode:
        raise click.ClickException(f"a training that nobody stopped ended with {process.returncode}:\n{said}")


def _states(process: subprocess.Popen[str], run: Path) -> Iterator[float]:
    """The moment of each state that a running training saves."""
    known = None
    while process.poll() is None:
        with suppress(FileNotFoundError):
            if (found := (run / RESUME).stat().st_ino) != known:
                known = found
                yield time.monotonic()
        time.sleep(0.002)
    if known is None:
        raise click.ClickException(f"no state was saved:\n{process.communicate()[0]}")


def _below(number: int) -> Iterator[int]:
    """The processes that a process started, and what those started."""
    try:
        children = Path(f"/proc/{number}/task/{number}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return
    for child in map(int, children):
        yield child
        yield from _below(child)


def _kill(number: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself just before, or with the one that started it
        os.kill(number, signal.SIGKILL)


def _where(run: Path) -> str:
    """How far the state is that was saved last, and what lay there half done."""
    state = newest(run, click.echo)
    counters = state.counters
    half = sorted(path.name for path in run.iterdir() if ".part" in path.name or path.name.startswith(".tmp"))
    over = counters.epoch == state.recipe["train"]["epochs"]
    return (
        f"{'the end' if over else f'epoch {counters.epoch + 1}, step {counters.step_in_epoch}'}"
        f"{', in the midst of writing ' + half[0].split('-')[0].strip('.') if half else ''}"
    )


def _row(number: int, kill: Kill) -> str:
    end = "equal bytes" if kill.equal else "**DIFFERENT**"
    return (
        f"| {number + 1} | {kill.way.processes} | {kill.way.workers} | {kill.who} | {kill.moment} "
        f"| {kill.place} | {kill.seconds:.0f} | {end} |"
    )


def _table(done: list[Kill], options: str) -> str:
    equal = sum(kill.equal for kill in done)
    lines = [
        "# Trainings killed with SIGKILL at random moments",
        "",
        f"Made by `python tools/kill_and_resume.py {options}` at {_commit()}:",
        "a toy detector, three epochs of six steps, a state after each step.",
        "",
        "| | processes | loader processes | killed | when | last saved | seconds of going on | in the end |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(number, kill) for number, kill in enumerate(done)),
        "",
        f"{equal} of {len(done)} ended in the bytes of a training that nobody stopped (`best`, `last` and `resume`; "
        f"PyTorch {torch.__version__}, on the CPU).",
    ]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
