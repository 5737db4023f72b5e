"""Feature extractors of timm: the smallest that it has."""

import importlib.util

import pytest
import torch
from torch import nn

from detr.backbones.timm import TimmBackbone, TimmConfig
from detr.config import validated
from detr.errors import InputError, UsageError
from detr.layers.timm import channel_attention, timm_package

PYRAMIDS = ["test_resnet", "test_convnext", "test_efficientnet", "test_mambaout"]
TRANSFORMERS = ["test_vit", "test_vit2"]  # all maps of stride 16


def built(**settings):
    torch.manual_seed(0)
    return TimmBackbone(validated(TimmConfig, settings, "test")).eval()


@pytest.mark.parametrize("name", [*PYRAMIDS, *TRANSFORMERS])
@torch.no_grad()
def test_maps_have_the_strides_and_channels_that_the_settings_say(name):
    backbone = built(name=name)
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(each.shape) for each in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.config.channels, (8, 16, 32), strict=True)
    ]


@torch.no_grad()
def test_other_levels_can_be_asked_for():
    backbone = built(name="test_convnext", strides=[4, 32])
    assert [each.shape[2] for each in backbone(torch.randn(1, 3, 64, 64))] == [16, 2]
    assert [each.shape[2] for each in built(name="test_vit", strides=[32])(torch.randn(1, 3, 64, 64))] == [2]


def test_a_transformer_gives_maps_from_evenly_over_its_depth():
    timm = timm_package()
    depth = len(timm.create_model("test_vit").blocks)
    backbone = built(name="test_vit", strides=[8, 16])
    assert backbone.body.out_indices == [round(depth / 2) - 1, depth - 1]


@torch.no_grad()
def test_maps_with_the_channels_last_are_turned():
    backbone = built(name="swin_tiny_patch4_window7_224", options={"embed_dim": 24, "depths": [1, 1, 1, 1]})
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(each.shape[1:]) for each in maps] == [(48, 8, 12), (96, 4, 6), (192, 2, 3)]


def test_frozen_norms_do_not_learn_and_do_not_drift():
    backbone = built(name="test_resnet", frozen_norms=True).train()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    before = {name: value.clone() for name, value in backbone.state_dict().items() if "running" in name}
    backbone(torch.randn(2, 3, 64, 64))
    assert before
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in before.items())


def test_gradients_reach_the_first_layer():
    backbone = built(name="test_vit")
    sum(each.square().mean() for each in backbone(torch.randn(1, 3, 64, 64))).backward()
    assert next(backbone.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "test_resnot"}, "test_resnet"),
        ({"name": "test_convnext", "strides": [8, 64]}, "strides 4, 8, 16, 32, not 64"),
        ({"name": "test_convnext", "strides": [16, 8]}, "from fine to coarse"),
        ({"name": "test_convnext", "strides": []}, "from fine to coarse"),
        ({"name": "test_vit", "strides": [1, 2, 4, 8, 16, 32, 64]}, "maps, not 7"),
        ({"name": "eva02_tiny_patch14_224"}, "patches of 14 pixels"),
        ({"name": "test_convnext", "options": {"colour": 3}}, "colour"),
        ({"name": "tresnet_m"}, "gives no feature maps"),
    ],
)
def test_what_timm_has_not_is_the_users_mistake(settings, said):
    with pytest.raises(UsageError, match=said):
        built(**settings)


def test_its_parts_cannot_be_frozen_one_by_one():
    backbone = built(name="test_resnet")
    for part in ("stem", "stages"):
        with pytest.raises(UsageError, match="nothing, backbone or 'all but heads'"):
            getattr(backbone, part)


def test_offline_nothing_is_downloaded(monkeypatch):
    monkeypatch.setenv("DETR_OFFLINE", "1")
    with pytest.raises(InputError, match="DETR_OFFLINE is set"):
        built(name="test_resnet", pretrained=True).load_pretrained()


def test_pretrained_weights_are_taken_whole(monkeypatch):
    import timm

    given, make = built(name="test_resnet"), timm.create_model

    def instead(*names, pretrained=False, **settings):  # nothing is fetched in a test
        return given.body if pretrained else make(*names, **settings)

    backbone = built(name="test_resnet", frozen_norms=True)
    monkeypatch.setattr(timm, "create_model", instead)
    nn.init.constant_(next(given.parameters()), 0.5)
    assert backbone.load_pretrained() == "timm's test_resnet"
    ours, theirs = backbone.body.state_dict(), given.body.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_without_timm_the_message_says_what_to_type(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'detr-toolkit\[timm\]'"):
        TimmConfig(name="another").channels  # noqa: B018
    with pytest.raises(UsageError, match="pip install"):
        channel_attention("se", 16)
    assert isinstance(channel_attention("none", 16), nn.Identity)


@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
def test_channel_attention_weighs_by_what_the_whole_map_holds(kind):
    torch.manual_seed(0)
    block = channel_attention(kind, 64).eval()
    x = torch.rand(1, 64, 5, 7)
    other = x.clone()
    other[:, 0, 4, 6] += 10.0  # far from the first place
    with torch.no_grad():
        here, there = block(x), block(other)
    assert here.shape == x.shape
    assert (here.abs() <= x.abs() + 1e-6).all()  # each is a gate between 0 and 1
    assert not torch.allclose(here[:, :3, 0, 0], there[:, :3, 0, 0])
