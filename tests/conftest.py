"""What all tests share: one seed, few threads, no network."""

import gc
import os
import socket
from contextlib import contextmanager

import hypothesis
import numpy as np
import pytest
import torch

# Where there is no GPU, Triton's kernels are interpreted; triton reads this when it is first imported, as torchvision
# does below.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from detr.data.coco import CocoDataset, read_annotations
from detr.data.shapes import make_shapes
from detr.data.sources import find_splits
from detr.engine.detector import Detector
from detr.training import train as program
from tests.small import BlobFinder, small_recipe

# Layers this small take longer on several threads, and many times as long where these wait for each other's core.
torch.set_num_threads(1)

# With a million objects in memory, looking for garbage as often as usual takes a tenth of the time.
gc.set_threshold(20_000, 20, 20)

# The same examples in every run, unless others are asked for: DETR_SEARCH=1 looks for new ones.
hypothesis.settings.register_profile("same every time", derandomize="DETR_SEARCH" not in os.environ)
hypothesis.settings.load_profile("same every time")


@pytest.fixture(autouse=True)
def same_every_time():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries still draw from it)


@pytest.fixture
def threads():
    """Has PyTorch take so many threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The toolkit works without a network; a test that needs one is a mistake. This machine itself is fine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def smaller():
    """The model section of a preset with fewer channels, queries and layers: the same parts and switches."""

    from detr.models.presets import model_config, preset

    def shrunk(tree, few, key=""):
        if isinstance(tree, dict):
            return {name: value if name == "input" else shrunk(value, few, name) for name, value in tree.items()}
        if key == "depth" and tree == 50:  # of a ResNet
            return 18
        return few.get(key, tree)

    def smaller_preset(name, *, num_layers):
        few = {"channels": 64, "hidden": 24, "heads": 4, "num_queries": 9, "num_layers": num_layers}
        few |= {"eval_layers": None}
        return model_config(shrunk(preset(name).model_dump(mode="json"), few), name)

    return smaller_preset


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory):
    """The folder of a generated set: 6 images to train on, 3 to evaluate on, 64 pixels wide."""
    return make_shapes(tmp_path_factory.mktemp("shapes") / "set", images=6, val_images=3, size=64, video=False)


def sets_of(folder):
    splits = find_splits(folder)
    train = read_annotations(splits["train"].annotations)
    val = read_annotations(splits["val"].annotations, classes=train.classes)
    return {
        "train_set": CocoDataset(train, splits["train"].images),
        "val_set": CocoDataset(val, splits["val"].images),
    }


@pytest.fixture
def small_sets(small_shapes):
    return sets_of(small_shapes)


def without_curves(patched):
    """Neither curves nor TensorBoard: they take longer than these trainings."""
    patched.setattr("detr.evaluation.plots.available", lambda: False)
    patched.setattr("detr.training.told.journal._tensorboard", lambda folder: None)


@pytest.fixture(scope="session")
def trained(small_shapes, tmp_path_factory):
    """The folder of a training of the small recipe for so many epochs, once for all: to be read, or copied."""
    folders = {}

    def of(epochs):
        if epochs not in folders:
            folders[epochs] = tmp_path_factory.mktemp("trained") / str(epochs)
            with pytest.MonkeyPatch.context() as patched:
                without_curves(patched)
                program.train(
                    small_recipe(epochs=epochs), **sets_of(small_shapes), out=folders[epochs],
                    device="cpu", workers=0, say=lambda line: None,
                )  # fmt: skip
        return folders[epochs]

    return of


@pytest.fixture
def plain(monkeypatch):
    without_curves(monkeypatch)


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


@pytest.fixture
def blob_finder():
    """Makes a detector, of 64 x 64 pixels or another input, which finds exactly the bright blobs that it is shown."""
    return lambda input=None: Detector(BlobFinder(input), device="cpu")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests all go to one process: what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
