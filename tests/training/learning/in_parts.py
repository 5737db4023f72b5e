"""What each process of `test_sharding.py` runs: DATA OUT; a training whole, in parts, and in parts gone on with."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from detr.data.coco import CocoDataset, read_annotations
from detr.data.sources import find_splits
from detr.runtime.distributed import joined
from detr.training import train as program
from detr.training.learning.sharding import own
from detr.training.told import journal
from detr.training.train import train
from tests.small import small_recipe

program.plots.available = lambda: False
journal._tensorboard = lambda folder: None
data, out = Path(sys.argv[1]), Path(sys.argv[2])
splits = find_splits(data)
annotations = {name: read_annotations(splits[name].annotations) for name in ("train", "val")}
sets = {f"{name}_set": CocoDataset(annotations[name], splits[name].images) for name in ("train", "val")}
take_step = program.take_step


class Stopped(Exception):
    pass


def stopping(run, pieces):
    if run.counters.step == 3:
        raise Stopped
    return take_step(run, pieces)


def overflowing(run, pieces):
    """In one of the processes, at the second step."""

    def overflow(module, given, answer):
        return answer * float("inf")

    first = run.network.encoder.bottom_up[0]
    hook = first.register_forward_hook(overflow) if run.team.rank == 1 and run.counters.step == 1 else None
    part, all_of_it = (sum(f(each).numel() for each in run.network.parameters()) for f in (own, lambda value: value))
    (out / f"part-{run.team.rank}").write_text(str(part / all_of_it))
    result = take_step(run, pieces)
    if hook is not None:
        hook.remove()
    return result


def run(name, *, resume=False, epochs=2, **settings):
    recipe = small_recipe(batch=4, accumulate=2, epochs=epochs, **settings)
    return train(recipe, **sets, out=out / name, device="cpu", workers=0, resume=resume, say=lambda line: None)


with joined(torch.device("cpu")):
    run("whole")
    run("parts", shard=True)
    program.take_step = stopping
    try:
        run("again", shard=True)
        raise AssertionError("it was to stop")
    except Stopped:
        program.take_step = take_step
    run("again", resume=True, shard=True)
    program.take_step = overflowing
    run("broken", shard=True, epochs=1)
