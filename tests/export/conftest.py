"""One small network of every architecture, and pictures for them."""

from pathlib import Path

import pytest
import torch

from detr.export import Form, write
from detr.models import build_model, load_model
from detr.models.presets import model_config, preset

HERE = Path(__file__).parent
ONE_OF_EACH = {
    "detr": "detr-r50",
    "deformable_detr": "deformable-detr-r50-two-stage",
    "dino": "dino-r50-4scale",
    "rtdetr": "rtdetr-r18",
    "rtdetrv2": "rtdetrv2-r18",
    "dfine": "dfine-n",
    "deimv2": "deimv2-n",
}
FEW = {"channels": 64, "hidden": 24, "heads": 4, "num_queries": 9, "num_layers": 1, "eval_layers": None}
SMALL = {"height": 96, "width": 64, "short": 64, "long": 96}


def shrunk(tree, key=""):
    if isinstance(tree, dict):
        return {name: value | SMALL if name == "input" else shrunk(value, name) for name, value in tree.items()}
    return 18 if key == "depth" and tree == 50 else FEW.get(key, tree)


def small_network(arch, seed=0):
    """With norms that aren't identities, so that folding them shows."""
    torch.manual_seed(seed)
    name = ONE_OF_EACH[arch]
    network = build_model(model_config(shrunk(preset(name).model_dump(mode="json")), name)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """(network, its ONNX file) of an architecture, made once."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}

    def of(arch):
        if arch not in made:
            network = small_network(arch)
            write("onnx", network, folder / f"{arch}.onnx")
            made[arch] = network, folder / f"{arch}.onnx"
        return made[arch]

    return of


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Of the model that comes with the package the file with all before and after it."""
    path = tmp_path_factory.mktemp("whole") / "whole.onnx"
    write("onnx", load_model("rtdetr-tiny"), path, form=Form(preprocessing=True, max_det=50))
    return path


def pytest_collection_modifyitems(items):
    """The files that `exported` and `whole` make are made by one worker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("export"))


@pytest.fixture(params=list(ONE_OF_EACH))
def each(request, exported):
    return exported(request.param)


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("DETR_HOME", str(tmp_path / "home"))
