"""A network and a data set small enough to be trained within a test."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import torch

from detr.config import validated
from detr.data.coco import CocoDataset, read_annotations
from detr.data.shapes import make_shapes
from detr.data.sources import find_splits
from detr.engine import train as program
from detr.engine.recipe import Recipe

SMALL = {
    "model": {
        "version": 2,
        "num_queries": 8,
        "num_denoising": 4,
        "backbone": {"depth": 10, "width": 8},
        "encoder": {"channels": 16, "heads": 2, "hidden": 16, "expansion": 0.5, "depth": 0.34},
        "decoder": {"channels": 16, "heads": 2, "hidden": 16, "num_layers": 2},
        "input": {"height": 64, "width": 64},
    },
    "train": {
        "epochs": 2,
        "batch": 2,
        "optimizer": {"lr": 1.0e-3, "backbone_lr": 1.0e-3},
        "schedule": {"warmup": 3},
        "average": {"decay": 0.9, "warmup": 2},
    },
}


def small_recipe(**train):
    return validated(Recipe, {**SMALL, "train": {**SMALL["train"], **train}}, "test")


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory):
    """The folder of a generated set: 6 images to train on, 3 to evaluate on, 64 pixels wide."""
    return make_shapes(tmp_path_factory.mktemp("shapes") / "set", images=6, val_images=3, size=64, video=False)


@pytest.fixture
def small_sets(small_shapes):
    splits = find_splits(small_shapes)
    train = read_annotations(splits["train"].annotations)
    val = read_annotations(splits["val"].annotations, classes=train.classes)
    return {
        "train_set": CocoDataset(train, splits["train"].images),
        "val_set": CocoDataset(val, splits["val"].images),
    }


@pytest.fixture
def plain(monkeypatch):
    """Neither curves nor TensorBoard, and one thread: they take longer than these trainings."""
    monkeypatch.setattr("detr.engine.plots.available", lambda: False)
    monkeypatch.setattr("detr.engine.journal._tensorboard", lambda folder: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def stopped_after(monkeypatch):
    """A block in which a training must end without warning before the step after so many."""

    class Stopped(BaseException):
        pass

    @contextmanager
    def block(steps):
        def stopping(run, pieces, take_step=program.take_step):
            if run.counters.step == steps:
                raise Stopped
            return take_step(run, pieces)

        with monkeypatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(program, "take_step", stopping)
            yield

    return block


@pytest.fixture
def recipe_with():
    """Builds the small recipe, with other settings of its `train` section."""
    return small_recipe


@pytest.fixture(scope="session")
def processes():
    """Runs `python WORDS` as so many processes of a team, as torchrun would -> of each its code, stdout and stderr."""

    def run(words, size):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
        with ExitStack() as stack:
            started = []
            for rank in range(size):
                process = subprocess.Popen(
                    [sys.executable, *map(str, words)],
                    env={**os.environ, **about, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                stack.enter_context(process)
                stack.callback(process.kill)
                started.append(process)
            said = [process.communicate(timeout=250) for process in started]
        return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]

    return run
