"""A network and a data set small enough to be trained within a test."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import torch
from scipy import ndimage
from torch import nn

from detr.classes import Classes
from detr.config import validated
from detr.data.coco import CocoDataset, read_annotations
from detr.data.shapes import make_shapes
from detr.data.sources import find_splits
from detr.engine import train as program
from detr.engine.detector import Detector
from detr.engine.recipe import Recipe
from detr.image import InputConfig
from detr.models.postprocess import Scoring
from detr.records import Output, Predictions

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


class BlobFinder(nn.Module):
    """One class, one query for each blob that can be told from the ground, as large as it is shown."""

    scoring = Scoring()

    def __init__(self, input=None):
        super().__init__()
        input = input or InputConfig(height=64, width=64)
        self.config = type("Config", (), {"arch": "rtdetr", "input": input})
        self.classes = Classes((7,), ("blob",))
        self.batches = []

    def forward(self, images, padding=None):
        self.batches.append(tuple(images.shape))
        logits, boxes = torch.full((len(images), 20, 1), -9.0), torch.full((len(images), 20, 4), 0.5)
        for image, image_logits, image_boxes in zip(images, logits, boxes, strict=True):
            bright = ndimage.label(image.mean(0).numpy() > 0.5)[0]
            for query, (rows, columns) in enumerate(ndimage.find_objects(bright)):
                height, width = bright.shape
                image_logits[query] = 2 + query / 10
                image_boxes[query] = torch.tensor(
                    [
                        (columns.start + columns.stop) / 2 / width,
                        (rows.start + rows.stop) / 2 / height,
                        (columns.stop - columns.start) / width,
                        (rows.stop - rows.start) / height,
                    ]
                )
        return Output((Predictions(logits, boxes),))


@pytest.fixture
def blob_finder():
    """Makes a detector, of 64 x 64 pixels or another input, which finds exactly the bright blobs that it is shown."""
    return lambda input=None: Detector(BlobFinder(input), device="cpu")
