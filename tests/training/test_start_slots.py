"""Heads whose rows are numbered by category ids, as those of DETR and its first successors are."""

import pytest
import torch

from detr.classes import COCO, Classes
from detr.models import build_model
from detr.training.recipe import load_recipe
from detr.training.saved.checkpoint import save_weights
from detr.training.start import class_entries, start_from

SMALL = {
    "detr-r50": ["model.channels=16"],
    "deformable-detr-r50-two-stage": ["model.encoder.channels=32", "model.encoder.hidden=16"],
    "dino-r50-4scale": ["model.encoder.channels=32", "model.encoder.hidden=16"],
}
OURS = Classes((0, 2, 5), ("cup", "dog", "person"))


def small(name):
    layers = ["model.encoder.num_layers=1", "model.decoder.num_layers=1", "model.decoder.hidden=16"]
    heads = ["model.encoder.heads=2", "model.decoder.heads=2", "model.num_queries=4", "model.backbone.width=8"]
    return load_recipe(name, [*SMALL[name], *layers, *heads])


@pytest.fixture(params=SMALL)
def started(request, tmp_path):
    """Our network as built and as started from one of COCO's 91 slots, and that one."""
    recipe = small(request.param)
    source = build_model(recipe.model, classes=COCO)
    with torch.no_grad():
        for name, value in source.named_parameters():
            value.copy_(torch.arange(value.numel()).view(value.shape) * 0.01 + len(name))
    save_weights(tmp_path / "source.safetensors", source, recipe, epoch=1, metrics={})
    network = build_model(recipe.model, classes=OURS)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    start = start_from(network, str(tmp_path / "source.safetensors"))
    assert start.text == "3 of 3 classes start from COCO: cup, dog, person"
    return network, fresh, source


def test_rows_go_from_id_to_id_by_name(started):
    network, fresh, source = started
    ours, theirs = network.state_dict(), source.state_dict()
    by_object = {id(module) for module in network.by_object()}
    special = {f"{prefix}.{part}" for prefix, module in network.named_modules() if id(module) in by_object
               for part in ("weight", "bias")}  # fmt: skip
    assert (network.num_slots, source.num_slots) == (6, 91)
    entries = set(class_entries(network))
    for name in entries:
        if name not in special:
            assert torch.equal(ours[name][[0, 2, 5]], theirs[name][[47, 18, 1]]), name
        assert torch.equal(ours[name][[1, 3, 4]], fresh[name][[1, 3, 4]]), name
        assert torch.equal(ours[name][6:], theirs[name][91:]), name
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name not in entries)


def test_the_row_that_says_there_is_an_object_goes_along_whatever_class_has_it(started):
    network, _, source = started
    if network.config.arch != "deformable_detr":
        assert network.by_object() == []
        return
    (ours,), (theirs,) = network.by_object(), source.by_object()
    assert torch.equal(ours.weight[0], theirs.weight[0]) and torch.equal(ours.bias[:1], theirs.bias[:1])
