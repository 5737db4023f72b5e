"""Names and shapes of HGNetv2 in the official programs, by the SHA-256 of the sorted `name shape` lines."""

import hashlib

import pytest
import torch

from detr.backbones.hgnetv2 import HGNetv2, HGNetv2Config
from detr.convert import identify, to_ours, to_theirs
from detr.convert.hgnetv2 import TABLES
from detr.convert.renaming import Table
from detr.convert.renaming import to_theirs as renamed
from detr.models import build_model

# Peterande/D-FINE at 4a1f73a, Intellindust-AI-Lab/DEIMv2 at 0fff8d4: the entries that begin with `backbone.`
BACKBONES = {
    "B0": ({}, 312, "3abfbeffc7504534755cab25d3ca5d790b06c5e70e1544e12e1b948ce0928b77"),
    "B2": ({}, 442, "085368f2198044316c758e70cdcd7a4c14e6f755f69049e7815e551da98690b3"),
    "B4": ({"affine": False}, 480, "7221860ed49b9b19414c1aa48f89b8e98876d83ae301308a4b39da41e06393a6"),
    "B5": (
        {"affine": False, "frozen_norms": True},
        650,
        "f95a9f1f1c4ebf5c03d90eabad32aee5647d8971a09f4e6b59784c2261a6a9b9",
    ),
    "Atto": ({"stages": (3,)}, 190, "659db32cfcf497ce34569a5eed7ba6ce3279b36172484672697173346ad250a5"),
    "Pico": ({"stages": (3,)}, 248, "5fc906316224d3553446b919b5fcc13f00f73a2a378d4e31a7749ca69a6e76fa"),
}
# lyuwenyu/RT-DETR at 068dfde, rtdetrv2_hgnetv2_*: all entries that don't follow from the configuration; parameters,
# and those that learn.
RTDETR = {
    "rtdetr-l": (861, "4f7e2398f32dd746a9e883a0ca03c1f6d3cbbc903384167178ce01da9696ecde", 32925036, 32900108),
    "rtdetr-x": (1111, "e8c6c91ce5214dca677fbe7a15933a26c46d8e9a988ebf1f1aa1aab68c1701e6", 67374188, 67348748),
}


def digest(state):
    rows = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    return len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest()


def backbone(size, **settings):
    with torch.device("meta"):
        return HGNetv2(HGNetv2Config(size=size, **{"affine": True, **settings}))


def whole(state, source):
    """Under the source's names as they stand in a whole model."""
    rows = tuple((f"backbone.{theirs}", ours) for theirs, ours in TABLES[source].rows)
    return renamed({f"backbone.{name}": tensor for name, tensor in state.items()}, Table(rows, ()))


@pytest.mark.parametrize("size", BACKBONES)
def test_names_and_shapes_are_the_official_ones_one_to_one(size):
    settings, count, sha = BACKBONES[size]
    assert digest(whole(backbone(size, **settings).state_dict(), "hgnetv2-official")) == (count, sha)


@pytest.mark.parametrize("name", RTDETR)
def test_rtdetr_on_hgnetv2_has_the_official_names_shapes_and_parameters(name):
    count, sha, parameters, learning = RTDETR[name]
    with torch.device("meta"):
        network = build_model(name)
    assert digest(to_theirs(network.state_dict(), "rtdetrv2-official")) == (count, sha)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == learning


@pytest.mark.parametrize("source", TABLES)
def test_a_file_of_a_backbone_alone_is_told_and_goes_both_ways(source):
    ours = {f"backbone.{name}": tensor for name, tensor in backbone("B0").state_dict().items()}
    theirs = to_theirs(ours, source)
    assert identify(theirs) == source
    assert to_ours(theirs, source) == ours
    assert all(name.startswith(("stem.stem", "stages.")) for name in theirs)
