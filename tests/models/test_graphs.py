"""Every architecture as one graph: recorded whole, without a look at the numbers on the way."""

import pytest
import torch

from detr.layers.position import _proposals, anchors
from detr.layers.tables import kept
from detr.layers.valid_area import cell_centres
from detr.models import MODELS, build_model
from detr.models.presets import preset
from detr.ops import choice, kernels

ONE_OF_EACH = [
    "detr-r50",
    "deformable-detr-r50-two-stage",
    "dino-r50-4scale",
    "rtdetrv2-r18-dsp",
    "dfine-n",
    "deimv2-n",
]


def test_every_architecture_is_here():
    assert {preset(name).arch for name in ONE_OF_EACH} == set(MODELS)


@pytest.fixture(params=ONE_OF_EACH)
def network(request, smaller):
    torch.manual_seed(0)
    return build_model(smaller(request.param, num_layers=2)).eval().deploy()


IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_network_is_exported_whole_for_any_number_of_images(smaller):
    """One that looks where no other does; tests/export has one of every architecture."""
    torch.manual_seed(0)
    network = build_model(smaller("rtdetrv2-r18-dsp", num_layers=2)).eval().deploy()
    program = torch.export.export(network, (IMAGES,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for images in (IMAGES, torch.cat([IMAGES, IMAGES.flip(3)])):
        expected, answer = network(images).layers[-1], program.module()(images).layers[-1]
        torch.testing.assert_close(answer.logits, expected.logits)
        torch.testing.assert_close(answer.boxes, expected.boxes)


@torch.no_grad()
def test_a_network_is_one_graph_for_the_compiler(network):
    torch._dynamo.reset()
    expected = network(IMAGES).layers[-1]
    answer = torch.compile(network, fullgraph=True, backend="eager")(IMAGES).layers[-1]
    torch.testing.assert_close(answer.logits, expected.logits)
    torch.testing.assert_close(answer.boxes, expected.boxes)


@torch.no_grad()
@pytest.mark.parametrize("name", ["rtdetrv2-r18", "dfine-n", "deformable-detr-r50-two-stage"])
def test_a_graph_for_a_device_has_no_step_on_the_cpu(name, smaller, monkeypatch):
    """Which would keep a GPU from replaying it."""
    pytest.importorskip("triton", reason="the kernels of a GPU need Triton")
    monkeypatch.setattr(choice, "_why_not_triton", lambda value: None)
    torch._dynamo.reset()
    network = build_model(smaller(name, num_layers=1)).eval().deploy().to("meta")
    steps = []

    def note(graph, inputs):
        steps.extend((node.name, node.meta.get("example_value")) for node in graph.graph.nodes)
        return graph

    with kernels("triton"):
        torch.compile(network, fullgraph=True, backend=note)(IMAGES.to("meta"))
    tensors = [(name, value) for name, value in steps if isinstance(value, torch.Tensor)]
    assert len(tensors) > 50
    assert [name for name, value in tensors if value.device.type != "meta"] == []


@pytest.mark.parametrize("side", [1, 2, 20, 49, 50, 51, 80])
@pytest.mark.parametrize("levels", [1, 3, 5])
def test_sizes_alone_tell_whether_all_anchors_are_valid(side, levels):
    shapes = ((20, side),) + ((4, 4),) * (levels - 1)
    valid = _proposals(cell_centres(shapes, None, torch.device("cpu"))[0], shapes)[1]
    given = anchors(shapes, like=torch.empty(0))[1]
    assert (given is None) == bool(valid.all())
    assert given is None or torch.equal(given, valid)


def test_a_table_is_made_once_and_belongs_to_no_inference():
    made = []

    @kept
    def table(size, *, scale=1.0):
        made.append(size)
        return torch.arange(size) * scale

    with torch.inference_mode():
        first = table(3, scale=2.0)
    assert table(3, scale=2.0) is first and made == [3]
    assert not first.is_inference() and not first.requires_grad
    assert table(4).tolist() == [0, 1, 2, 3] and made == [3, 4]
