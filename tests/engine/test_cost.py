import json
from pathlib import Path

import pytest
import torch

from detr.engine.cost import flops_of, parameters_of
from detr.models import build_model

MEASURED = json.loads((Path(__file__).parents[2] / "weights" / "models.json").read_text(encoding="utf-8"))


def on_shapes_alone(name):
    with torch.device("meta"):
        return build_model(name)


@pytest.mark.parametrize("name", ["rtdetr-tiny", "detr-r50", "dfine-n", "deimv2-atto", "dino-r50-4scale"])
def test_what_the_table_says_is_what_is_measured(name):
    network, row = on_shapes_alone(name), MEASURED[name]
    assert parameters_of(network) == row["parameters"]
    assert flops_of(network) / 1e9 == pytest.approx(row["gflops"], abs=6e-4)
    assert (network.config.num_queries, len(network.decoder.layers)) == (row["queries"], row["layers"])
    assert list(network.config.input.size_of(480, 640)) == row["input"]


def test_a_convolution_and_a_product_cost_what_a_hand_counts():
    """The stem of the tiny model alone: 3 to 12 channels at half the size, 9 products each, then 12 to 12, 12 to 24."""
    network = on_shapes_alone("rtdetr-tiny")
    whole = flops_of(network)
    side = 160
    stem = 2 * 9 * side * side * (3 * 12 + 12 * 12 + 12 * 24)
    network.backbone.stem = torch.nn.Conv2d(3, 24, 1, stride=2, device="meta")
    assert whole - flops_of(network) == stem - 2 * side * side * 3 * 24


def test_fewer_layers_and_queries_cost_less():
    network = on_shapes_alone("rtdetr-tiny")
    whole = flops_of(network)
    network.set_layers(1)
    one_layer = flops_of(network)
    network.set_queries(10)
    assert flops_of(network) < one_layer < whole


def test_counting_leaves_the_network_as_it_was():
    network = build_model("rtdetr-tiny")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flops_of(network)
    assert network.training and network.denoising is not None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
