"""What `test_killed.py` runs: DATA OUT NAMES...; trainings that are killed at a moment, and gone on with."""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from detr import weights
from detr.data.coco import CocoDataset, read_annotations
from detr.data.sources import find_splits
from detr.training import train as program
from detr.training.saved import generations
from detr.training.saved.generations import NEXT
from detr.training.saved.pace import Pace
from detr.training.told import journal
from detr.training.train import train
from tests.small import small_recipe

# Name -> (loader processes, the moment of each attempt; None is left alone). Three steps make an epoch of the two.
CASES = {
    "whole": (0, [None]),
    "within an epoch": (2, [("step", 5), None]),
    "in the midst of writing a state": (0, [("half", NEXT, 4), None]),
    "between two renames": (0, [("rename", 6), None]),
    "again and again": (2, [("step", 0), ("half", NEXT, 2), ("half", "best", 1), ("rename", 3), None]),
}


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrange(kind, *details):
    """That the process is killed then, from within."""
    if kind == "step":  # before the one after so many
        original = program.take_step

        def take_step(run, pieces):
            if run.counters.step == details[0]:
                killed()
            return original(run, pieces)

        program.take_step = take_step
    elif kind == "half":  # of a file of this name, the time that it is written for the nth time
        name, left = details[0], [details[1]]
        save_file = weights.save_file

        def save_half(tensors, path, metadata):
            save_file(tensors, path, metadata=metadata)
            if Path(path).name.startswith(f".{name.removesuffix('.safetensors')}-"):
                left[0] -= 1
                if not left[0]:
                    os.truncate(path, Path(path).stat().st_size // 2)
                    killed()

        weights.save_file = save_half
    else:  # after so many renames of states
        left, replace = [details[0]], os.replace

        class Os:
            def __getattr__(self, name):
                return getattr(os, name)

            def replace(self, source, target):
                replace(source, target)
                left[0] -= 1
                if not left[0]:
                    killed()

        generations.os = Os()


def attempt(data, out, workers, moment, *, resume):
    """In a process of its own -> the signal that ended it, 0 if it came to the end."""
    child = os.fork()
    if not child:
        try:
            if moment is not None:
                arrange(*moment)
            program.plots.available = lambda: False
            journal._tensorboard = lambda folder: None
            splits = find_splits(data)
            sets = {
                f"{name}_set": CocoDataset(read_annotations(splits[name].annotations), splits[name].images)
                for name in ("train", "val")
            }
            train(
                small_recipe(), **sets, out=out, device="cpu", workers=workers, resume=resume, save_every=Pace(steps=1)
            )
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


data, out = Path(sys.argv[1]), Path(sys.argv[2])
ends = {}
for case in sys.argv[3:]:
    workers, moments = CASES[case]
    folder = out / case.replace(" ", "-")
    ends[case] = [attempt(data, folder, workers, moment, resume=number > 0) for number, moment in enumerate(moments)]
(out / "ends.json").write_text(json.dumps(ends))
