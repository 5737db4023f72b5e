"""What the official criteria make of small predictions and targets, ours make of them (tests/golden/README.md)."""

import json
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from detr.criterion import CriterionConfig, criterion_for

GOLDEN = Path(__file__).parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import criterion_case  # noqa: E402 (it is beside the recordings)

# The official code takes two roots in float32 that mix one of D-FINE's losses.
RELATIVE = 1e-7
CASES = json.loads((GOLDEN / "criteria.json").read_text())

pytestmark = pytest.mark.filterwarnings("ignore:image 0 has 14 targets for 12 queries")


@cache
def ours(name):
    """Losses by name, and the norms of the gradients of their sum."""
    case = CASES[name]
    given = criterion_case.made(case)
    settings = case.get("criterion")
    criterion = criterion_for(network(case["arch"]), CriterionConfig(**settings) if settings else None)
    criterion.epoch = case.get("epoch", 0)
    losses = criterion(given.output, given.targets)
    sum(losses.values()).backward()
    gradients = {part: 0.0 if each.grad is None else each.grad.norm().item() for part, each in given.parts.items()}
    return {loss: value.item() for loss, value in losses.items()}, gradients


def network(arch):
    return SimpleNamespace(
        config=SimpleNamespace(arch=arch, decoder=SimpleNamespace(scale=4.0, up=0.5)),
        slots=tuple(range(criterion_case.CLASSES)),
        scoring=SimpleNamespace(exclusive=arch == "detr"),
    )


def but_nothing(values):
    return {name: value for name, value in values.items() if value}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_the_official_ones(name):
    losses, _ = ours(name)
    assert but_nothing(losses) == pytest.approx(CASES[name]["losses"], rel=RELATIVE)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_official_ones(name):
    _, gradients = ours(name)
    assert but_nothing(gradients) == pytest.approx(CASES[name]["gradients"], rel=RELATIVE)
