import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import detr
from detr.convert import TABLES, source_for, to_theirs
from detr.errors import UsageError
from detr.models import build_model, model_config, models, preset
from detr.models.likeness import presets_like

OFFICIAL = json.loads((Path(__file__).parent.parent / "golden" / "official_names.json").read_text())


@pytest.fixture(params=list(OFFICIAL))
def network(request):
    with torch.device("meta"):
        return request.param, build_model(request.param)


def test_every_official_model_is_there():
    assert set(OFFICIAL) | {"rtdetr-tiny"} <= set(models())


@pytest.mark.parametrize(
    "name", ["detr-r50", "deformable-detr-r50", "dino-r50-4scale", "rtdetr-r18", "dfine-n", "deimv2-n"]
)
def test_from_one_to_all_of_the_layers_and_queries_may_run(name):
    tree = preset(name).model_dump(mode="json")
    learned = tree["num_queries"] if "eval_queries" in tree else None
    for layers, queries in ((1, learned and 1), (tree["decoder"]["num_layers"], learned)):
        fewer = {} if learned is None else {"eval_queries": queries}
        config = model_config({**tree, **fewer, "decoder": {**tree["decoder"], "eval_layers": layers}}, name)
        assert config.decoder.eval_layers == layers and getattr(config, "eval_queries", None) == queries


def test_names_and_shapes_are_the_official_ones_one_to_one(network):
    name, network = network
    state = to_theirs(network.state_dict(), source_for(network.config, "official"))
    rows = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
    assert len(rows) == OFFICIAL[name]["entries"]
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest() == OFFICIAL[name]["sha256"]


def test_parameters_are_as_many_and_as_learnable_as_officially(network):
    name, network = network
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    assert sum(count for count, _ in counts) == OFFICIAL[name]["parameters"]
    assert sum(count for count, learns in counts if learns) == OFFICIAL[name]["learnable"]


def test_tensors_show_which_preset_they_belong_to(network):
    """But not the activation: D-FINE's and DEIM's n, s and m have the same tensors."""
    name, network = network
    fields = dict(TABLES[source_for(network.config, "official")].fields)
    expected = {name.removesuffix("-dsp")}
    if name.removeprefix("deim-") in ("dfine-n", "dfine-s", "dfine-m"):
        expected = {name.removeprefix("deim-"), f"deim-{name.removeprefix('deim-')}"}
    assert set(presets_like(network.state_dict(), arch=network.config.arch, **fields)) == expected


def test_the_tiny_model_is_tiny():
    parameters = sum(parameter.numel() for parameter in build_model("rtdetr-tiny").parameters())
    assert parameters <= 4_000_000


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="did you mean 'rtdetr-r50'"):
        build_model("rtdetr-r5O")
    with pytest.raises(UsageError, match=r"no model is called 'zebra'; known are .*rtdetr-r101, "):
        preset("zebra")


def test_models_lists_names_whatever_has_been_imported():
    assert detr.models() == models()
    program = "import detr; before = detr.models(); import detr.models; assert detr.models() == before"
    subprocess.run([sys.executable, "-c", program], check=True)
