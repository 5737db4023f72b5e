import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detr.convert import source_for, to_theirs
from detr.errors import UsageError
from detr.models import build_model
from detr.training.learning.optimizer import (
    OptimizerConfig,
    ScheduleConfig,
    build_optimizer,
    groups_by_role,
    rate_factor,
    roles,
    set_rates,
    table,
)
from detr.training.recipe import load_recipe

RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "optimizer_groups.json").read_text())


def official_groups(preset):
    """Our groups of a recipe under official names, second ones included; those with the same rate and decay joined."""
    recipe = load_recipe(preset)
    with torch.device("meta"):
        network = build_model(recipe.model)
    groups = {
        parameter: (group.lr, group.weight_decay)
        for group in groups_by_role(network, recipe.train.optimizer)
        for parameter in group.parameters
    }
    joined = {}
    for name, parameter in to_theirs(dict(network.named_parameters()), source_for(recipe.model, "official")).items():
        if parameter in groups:
            joined.setdefault(groups[parameter], []).append(name)
    return joined


@pytest.mark.parametrize("preset", RECORDED)
def test_groups_are_the_official_ones(preset):
    ours = [
        {
            "lr": lr,
            "weight_decay": decay,
            "tensors": len(names),
            "sha256": hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest(),
        }
        for (lr, decay), names in sorted(official_groups(preset).items())
    ]
    assert ours == RECORDED[preset]


def tiny():
    return build_model(load_recipe("rtdetr-tiny").model)


def test_each_parameter_has_one_role():
    network = tiny()
    names = [name for _, name, _ in roles(network)]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())


def test_roles_follow_types_and_places():
    network = tiny()
    role_of = {name: role for role, name, _ in roles(network)}
    assert role_of["backbone.stem.0.conv.weight"] == "backbone"
    assert role_of["backbone.stem.0.norm.bias"] == "backbone norms"
    assert role_of["encoder.projections.0.norm.weight"] == "projection norms"
    assert role_of["encoder.projections.0.norm.bias"] == "projection norm biases"
    assert role_of["encoder.laterals.0.norm.weight"] == "norms"
    assert role_of["decoder.layers.0.cross_attention.offsets.weight"] == "sampling"
    assert role_of["decoder.layers.0.cross_attention.offsets.bias"] == "sampling biases"
    assert role_of["decoder.layers.0.cross_attention.weights.weight"] == "rest"
    assert role_of["queries.norm.weight"] == "projection norms"
    assert role_of["queries.score_head.bias"] == "biases"
    assert role_of["denoising.class_embedding.weight"] == "rest"


def rates_and_decays(**settings):
    config = OptimizerConfig(lr=1e-2, backbone_lr=1e-3, weight_decay=0.5, **settings)
    return {group.role: (group.lr, group.weight_decay) for group in groups_by_role(tiny(), config)}


def test_the_switches_change_their_own_roles_only():
    plain = rates_and_decays()
    assert plain["backbone"] == (1e-3, 0.5) and plain["backbone norms"] == (1e-3, 0.0)
    assert plain["rest"] == plain["biases"] == plain["sampling"] == (1e-2, 0.5)
    for switches, changed in [
        ({"sampling_lr": 1e-4}, {"sampling": (1e-4, 0.5), "sampling biases": (1e-4, 0.5)}),
        ({"slow_backbone_norms": False}, {"backbone norms": (1e-2, 0.0)}),
        ({"decay_backbone_norms": True}, {"backbone norms": (1e-3, 0.5)}),
        ({"decay_biases": False}, {"biases": (1e-2, 0.0), "sampling biases": (1e-2, 0.0)}),
        (
            {"decay_projection_norms": True},
            {"projection norms": (1e-2, 0.5), "projection norm biases": (1e-2, 0.5)},
        ),
        (
            {"decay_projection_norms": True, "decay_biases": False},
            {"projection norms": (1e-2, 0.5), "biases": (1e-2, 0.0), "sampling biases": (1e-2, 0.0)},
        ),
    ]:
        assert rates_and_decays(**switches) == plain | changed, switches
    everything = rates_and_decays(decay_norms=True)
    assert all(decay == 0.5 for _, decay in everything.values())


def test_what_stands_beside_a_pretrained_backbone_learns_as_fast_as_the_rest():
    network = tiny()
    network.backbone.fresh = lambda: [network.backbone.stages[-1]]
    role_of = {name: role for role, name, _ in roles(network)}
    assert role_of["backbone.stages.3.0.conv1.conv.weight"] == "rest"
    assert role_of["backbone.stages.3.0.conv1.norm.weight"] == "projection norms"
    assert role_of["backbone.stages.2.0.conv1.conv.weight"] == "backbone"


def test_frozen_parameters_are_in_no_group():
    network = tiny()
    network.backbone.requires_grad_(False)
    assert not any(group.role.startswith("backbone") for group in groups_by_role(network, OptimizerConfig()))


def test_the_table_counts_every_parameter():
    network = tiny()
    groups = groups_by_role(network, OptimizerConfig())
    counted = [int(line.split()[-3].replace(",", "")) for line in table(groups).splitlines()[1:]]
    assert sum(counted) == sum(parameter.numel() for parameter in network.parameters())


def test_the_schedule_multiplies_each_groups_own_rate():
    groups = groups_by_role(tiny(), OptimizerConfig(lr=1e-3, backbone_lr=1e-4))
    optimizer = build_optimizer(groups, OptimizerConfig())
    set_rates(optimizer, 0.5)
    assert {group["role"]: group["lr"] for group in optimizer.param_groups}["backbone"] == pytest.approx(5e-5)
    assert {group["role"]: group["lr"] for group in optimizer.param_groups}["rest"] == pytest.approx(5e-4)


def test_an_optimizer_told_of_a_broken_step_leaves_the_weights():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.clone()
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(layer.weight, before)
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert not torch.equal(layer.weight, before)


@given(
    shape=st.sampled_from(["constant", "multistep", "cosine", "flat-cosine"]),
    warmup=st.integers(0, 50),
    rise=st.sampled_from(["linear", "quadratic"]),
    end=st.sampled_from([0.0, 0.1, 0.4]),
    epochs=st.integers(1, 20),
    steps=st.integers(1, 20),
)
@settings(deadline=None, max_examples=80)
def test_rates_rise_in_the_warm_up_and_never_after(shape, warmup, rise, end, epochs, steps):
    config = ScheduleConfig(shape=shape, warmup=warmup, rise=rise, end=end, milestones=(epochs // 2,))
    factors = [rate_factor(config, step, steps_per_epoch=steps, epochs=epochs) for step in range(epochs * steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


def test_warm_up_is_linear_and_ends_at_the_full_rate():
    config = ScheduleConfig(warmup=4)
    assert [rate_factor(config, step, steps_per_epoch=10, epochs=1) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_a_lower_peak_lowers_every_rate():
    shape = {"shape": "cosine", "warmup": 4, "last": 0.1}
    for step in range(20):
        full, half = (
            rate_factor(ScheduleConfig(**shape, peak=peak), step, steps_per_epoch=10, epochs=2) for peak in (1.0, 0.5)
        )
        assert half == full / 2


def test_multistep_falls_at_its_epochs():
    config = ScheduleConfig(shape="multistep", milestones=(2, 3), gamma=0.1)
    factors = [rate_factor(config, step, steps_per_epoch=2, epochs=4) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_flat_cosine_stays_and_then_falls_to_the_last_rate():
    config = ScheduleConfig(shape="flat-cosine", flat=0.5, last=0.1)
    factors = [rate_factor(config, step, steps_per_epoch=10, epochs=10) for step in range(101)]
    assert factors[:51] == [1.0] * 51
    assert factors[75] == pytest.approx(0.55)
    assert math.isclose(factors[100], 0.1)


def test_deims_schedule_rises_by_the_square_stays_falls_and_stays():
    """58 epochs of 100 steps: 40 of warm-up, flat to epoch 29, half the rate from epoch 50 on."""
    config = ScheduleConfig(shape="flat-cosine", warmup=40, rise="quadratic", flat=0.5, end=8 / 58, last=0.5)
    factors = [rate_factor(config, step, steps_per_epoch=100, epochs=58) for step in range(5800)]
    assert factors[0] == (1 / 40) ** 2 and factors[19] == 0.25
    assert factors[39:2901] == [1.0] * 2862
    assert factors[3950] == pytest.approx(0.75)
    assert factors[4999] > 0.5 and set(factors[5000:]) == {0.5}


def test_a_schedule_without_room_to_fall_is_refused():
    with pytest.raises(UsageError, match=r"flat 0.6 and end 0.4 leave no steps"):
        load_recipe("rtdetr-tiny", ["train.schedule.flat=0.6", "train.schedule.end=0.4"])
