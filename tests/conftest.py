"""What all tests share: one seed, few threads, no network."""

import os
import socket

import hypothesis
import numpy as np
import pytest
import torch

# Of two cores: both, or one for each of the two processes of `pytest -n 2`.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# Where there is no GPU, Triton's kernels are interpreted; triton reads this when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# The same examples in every run, unless others are asked for: DETR_SEARCH=1 looks for new ones.
hypothesis.settings.register_profile("same every time", derandomize="DETR_SEARCH" not in os.environ)
hypothesis.settings.load_profile("same every time")


@pytest.fixture(autouse=True)
def same_every_time():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries still draw from it)


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


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
