import pytest
import torch

from detr.backbones.timm import TimmConfig
from detr.errors import UsageError
from detr.models import build_model
from detr.models.presets import preset
from detr.training.learning.depth import depths
from detr.training.learning.optimizer import OptimizerConfig, groups_by_role, table

CONFIG = OptimizerConfig(lr=1e-2, backbone_lr=1e-3, layer_decay=0.5)


def network(name):
    with torch.device("meta"):
        return build_model(name)


def rates(net, config=CONFIG):
    rate_of = {}
    for group in groups_by_role(net, config):
        rate_of |= dict.fromkeys(group.names, group.lr)
    return rate_of


def test_stages_of_a_convolutional_backbone_halve_towards_the_image():
    rate_of = rates(network("rtdetr-r18"))
    assert [rate_of[f"backbone.stages.{stage}.0.conv1.conv.weight"] for stage in range(4)] == [
        1e-3 / 8,
        1e-3 / 4,
        1e-3 / 2,
        1e-3,
    ]
    assert rate_of["backbone.stem.0.conv.weight"] == rate_of["backbone.stem.0.norm.weight"] == 1e-3 / 16
    assert rate_of["encoder.projections.0.conv.weight"] == 1e-2


def test_layers_of_a_transformer_are_its_stages():
    net = network("deimv2-s")
    rate_of, count = rates(net), len(net.backbone.stages)
    assert rate_of["backbone.stages.11.attention.project_in.weight"] == 1e-3
    assert rate_of["backbone.stages.0.attention.project_in.weight"] == pytest.approx(1e-3 * 0.5**11)
    assert rate_of["backbone.stem.weight"] == rate_of["backbone.class_token"] == 1e-3 * 0.5**count
    assert rate_of["backbone.projections.0.conv.weight"] == 1e-2  # beside the pretrained transformer


def test_the_norm_behind_the_last_layer_goes_with_it():
    net = network("deimv2-l")
    depth_of = depths(net)
    assert [depth_of[parameter] for parameter in net.backbone.norm.parameters()] == [0, 0]
    assert not any(parameter in depth_of for part in net.fresh() for parameter in part.parameters())


@pytest.mark.parametrize("name", ["detr-r50", "dino-r50-4scale", "dfine-n", "deimv2-atto", "deimv2-x"])
def test_every_parameter_still_has_one_group(name):
    net = network(name)
    names = [name for group in groups_by_role(net, CONFIG) for name in group.names]
    assert sorted(names) == sorted(name for name, parameter in net.named_parameters() if parameter.requires_grad)


def test_a_decay_of_one_leaves_all_rates():
    net = network("rtdetr-r18")
    same = CONFIG.model_copy(update={"layer_decay": 1.0})
    assert rates(net, same) == rates(net, CONFIG.model_copy(update={"layer_decay": None}))


def test_the_table_says_how_deep_a_group_lies():
    lines = table(groups_by_role(network("rtdetr-r18"), CONFIG)).splitlines()
    assert sum(line.startswith("backbone -") for line in lines) == 5
    assert any(line.startswith("backbone norms -4") for line in lines)


def test_a_backbone_without_stages_is_refused():
    pytest.importorskip("timm")
    config = preset("rtdetr-tiny").model_copy(update={"backbone": TimmConfig(name="test_convnext")})
    with pytest.raises(UsageError, match=r"no train\.optimizer\.layer_decay"):
        groups_by_role(build_model(config), CONFIG)
