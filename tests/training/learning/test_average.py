import copy
import math

import pytest
import torch
from torch import nn

from detr.training.learning.average import Average, AverageConfig, decay_after


def network():
    parts = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    parts.register_buffer("table", torch.ones(2), persistent=False)
    return parts


def test_decay_rises_from_nothing_to_its_value():
    config = AverageConfig(decay=0.9999, warmup=2000)
    assert decay_after(1, config) == pytest.approx(0.9999 * (1 - math.exp(-1 / 2000)))
    assert decay_after(2000, config) == pytest.approx(0.9999 * (1 - math.exp(-1)))
    assert decay_after(10**6, config) == pytest.approx(0.9999)


def test_decay_without_warm_up_is_constant():
    assert decay_after(1, AverageConfig(decay=0.9, warmup=0)) == 0.9


def test_every_floating_entry_follows_statistics_too():
    learner = network()
    average = Average(learner, AverageConfig(decay=0.9, warmup=0))
    learner.double(), average.network.double()  # other tensors than those it began with, as on another device
    before = copy.deepcopy(average.network.state_dict())
    with torch.no_grad():
        for value in learner.state_dict().values():
            value.add_(1)
    average.update()
    for name, value in average.network.state_dict().items():
        wanted = (
            before[name] * 0.9 + learner.state_dict()[name] * 0.1 if value.is_floating_point() else before[name] + 1
        )
        torch.testing.assert_close(value, wanted)


def test_average_of_a_constant_network_is_that_network():
    learner = network()
    average = Average(learner)
    for _ in range(5):
        average.update()
    for ours, theirs in zip(average.network.parameters(), learner.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_average_evaluates_and_never_learns():
    average = Average(network())
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_a_loaded_average_goes_on_where_it_was():
    learner = network()
    first = Average(learner, AverageConfig(decay=0.9, warmup=3))
    first.update()
    second = Average(learner, AverageConfig(decay=0.9, warmup=3))
    second.load(first.network.state_dict(), first.updates)
    with torch.no_grad():
        learner[0].weight.add_(1)
    first.update()
    second.update()
    for ours, theirs in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_that_is_left_out_counts_but_leaves_no_trace():
    """What is told by a tensor nobody waits for does what a plain update does, or nothing to the floating entries."""
    learner = network()
    plain, told, left_out = (Average(learner, AverageConfig(decay=0.5, warmup=0)) for _ in range(3))
    before = copy.deepcopy(left_out.network.state_dict())
    with torch.no_grad():
        for value in learner.state_dict().values():
            value.add_(2)
    plain.update()
    told.update(unless=torch.tensor(False))
    left_out.update(unless=torch.tensor(True))
    assert plain.updates == told.updates == left_out.updates == 1
    for name, value in told.network.state_dict().items():
        torch.testing.assert_close(value, plain.network.state_dict()[name])
        if value.is_floating_point():
            assert torch.equal(left_out.network.state_dict()[name], before[name])
