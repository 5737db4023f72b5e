"""What `test_signals.py` runs: RECIPE DATA PROJECT; trainings of the command line that are sent a signal."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from detr.cli import main
from detr.evaluation import plots
from detr.training import train as program
from detr.training.told import journal
from detr.training.told.journal import read

recipe, data, project = sys.argv[1:]


def train(name, number):
    """In a process of its own, which gets the signal after its first step -> its exit code and what it said."""
    run, said = Path(project) / "train" / name, Path(project) / f"{name}.txt"
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open(said, os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        plots.available = lambda: False
        journal._tensorboard = lambda folder: None
        take_step = program.take_step
        program.take_step = lambda *arguments: (time.sleep(0.2), take_step(*arguments))[1]
        sys.argv = ["detr", "train", recipe, "--data", data, "--project", project, "--name", name, "--workers", "1"]
        main()
    ended, status = 0, 0
    while not ended and not read(run / "metrics.jsonl"):
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, number)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text()


print(json.dumps({number.name: train(number.name, number) for number in (signal.SIGINT, signal.SIGTERM)}))
