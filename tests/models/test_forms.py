"""Every architecture in every form: written, read again, the same to the last bit."""

import pytest
import torch

from detr import convert, weights
from detr.classes import COCO
from detr.errors import InputError
from detr.models import MODELS, build_model, load_model, network_of
from detr.models.inspection import inspect
from detr.models.presets import preset
from detr.models.saving import save_model

ONE_OF_EACH_KIND = [
    "detr-r50",
    "deformable-detr-r50",
    "deformable-detr-r50-refine",
    "deformable-detr-r50-two-stage",
    "dino-r50-4scale",
    "rtdetr-r18",
    "rtdetr-l",
    "rtdetrv2-r18",
    "dfine-n",
    "dfine-s",
    "deim-dfine-s",
    "deim-rtdetrv2-r18",
    "deimv2-atto",
    "deimv2-pico",
    "deimv2-n",
]
NOT_IN_TRANSFORMERS = {  # and what it says
    "dino-r50-4scale": "transformers has no model like dino",
    "rtdetr-l": "can't have backbone.kind 'hgnetv2', only 'resnet'",
    "deim-dfine-s": "can't have decoder.activation 'silu', only 'relu'",
    "deim-rtdetrv2-r18": "can't have decoder.activation 'silu', only 'relu'",
}


@pytest.fixture
def network_like(smaller):
    def network(name):
        """The preset with fewer channels and layers, every number near its start and unlike all others."""
        torch.manual_seed(0)
        network = build_model(smaller(name, num_layers=2)).eval()
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.copy_(tensor + 0.02 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor + 3)
        return network

    return network


def without_counters(network):
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def assert_same(network, other):
    mine, others = without_counters(network), without_counters(other)
    assert mine.keys() == others.keys()
    assert [name for name in mine if not torch.equal(mine[name], others[name])] == []


def test_every_architecture_is_here():
    assert {preset(name).arch for name in ONE_OF_EACH_KIND} == set(MODELS)


@pytest.mark.parametrize(
    "name", ["detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "dfine-n", "deimv2-atto"]
)
def test_ours_says_all_it_is(name, network_like, tmp_path):
    network = network_like(name)
    save_model(network, tmp_path / "ours.safetensors", metadata={"epoch": 3})
    loaded = load_model(str(tmp_path / "ours.safetensors"))
    assert_same(network, loaded)
    assert (loaded.config, loaded.classes) == (network.config, network.classes)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_the_official_form_and_back_changes_nothing(name, network_like, tmp_path):
    network = network_like(name)
    save_model(network, tmp_path / "official.pth", "official")
    checkpoint = weights.read(tmp_path / "official.pth")
    assert convert.identify(checkpoint.state) == convert.source_for(network.config, "official")
    loaded = network_of(checkpoint, otherwise=network.config)
    assert_same(network, loaded)
    assert loaded.classes == COCO


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_hugging_faces_form_and_back_changes_nothing(name, network_like, tmp_path):
    network = network_like(name)
    if name in NOT_IN_TRANSFORMERS:
        with pytest.raises(InputError, match=NOT_IN_TRANSFORMERS[name]):
            save_model(network, tmp_path / "folder", "hf")
        assert not (tmp_path / "folder").exists()
        return
    save_model(network, tmp_path / "folder", "hf")
    loaded = load_model(str(tmp_path / "folder"))
    assert_same(network, loaded)
    assert loaded.config.arch == network.config.arch
    assert loaded.classes.names == network.classes.names
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        mine, others = network(images).layers[-1], loaded.eval()(images).layers[-1]
    torch.testing.assert_close(loaded.scoring(others.logits), network.scoring(mine.logits))
    torch.testing.assert_close(others.boxes, mine.boxes)


def test_inspection_names_the_preset_of_an_official_file(tmp_path):
    network = build_model("deimv2-atto")
    save_model(network, tmp_path / "official.pth", "official")
    report = inspect(str(tmp_path / "official.pth"))
    assert report["model"] == "deimv2-atto"
    assert report["problem"] is None
    assert report["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert report["classes"][0]["name"] == "person" and len(report["classes"]) == 80
