"""Losses, matches and gradients of the official code, from weights that follow a rule (tests/golden/README.md)."""

import json
import sys
from functools import cache
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import training_step  # noqa: E402 (it is beside the recordings)

RECORDS = json.loads((GOLDEN / "losses.json").read_text())
WITH_GRADIENTS = [name for name, record in RECORDS.items() if "gradients" in record]
EARLY = ("backbone.stem", "backbone.stages.0", "backbone.stages.1", "backbone.stages.2")


@cache
def taken(fixture):
    """Losses, matches, their union, and where recorded the norms of the gradients by official name."""
    record = RECORDS[fixture]
    step = training_step.take(record, gradients="gradients" in record)
    norms = {kind: step.gradients(kind, without=EARLY) for kind in record.get("gradients", ())}
    return step.values(), step.matches(), step.union(), norms


def pairs(images):
    return [sorted(zip(*image, strict=True)) for image in images]


@pytest.mark.parametrize("fixture", RECORDS)
def test_losses_are_the_official_ones_under_their_names(fixture):
    losses, *_ = taken(fixture)
    assert losses == pytest.approx(RECORDS[fixture]["losses"], rel=1e-6)


@pytest.mark.parametrize("fixture", [name for name in RECORDS if "matches" in RECORDS[name]])
def test_matches_are_the_official_ones_in_their_order(fixture):
    _, matches, *_ = taken(fixture)
    assert json.loads(json.dumps(matches)) == RECORDS[fixture]["matches"]


@pytest.mark.parametrize("fixture", [name for name in RECORDS if "union" in RECORDS[name]])
def test_the_union_of_the_matches_is_the_official_one(fixture):
    *_, union, _ = taken(fixture)
    assert pairs(union) == pairs(RECORDS[fixture]["union"])


@pytest.mark.parametrize("kind", ["classification", "localisation"])
@pytest.mark.parametrize("fixture", WITH_GRADIENTS)
def test_the_gradient_of_each_parameter_is_the_official_one(fixture, kind):
    """They answer to each place where a gradient is stopped. What has no gradient there has none here."""
    *_, norms = taken(fixture)
    recorded = RECORDS[fixture]["gradients"][kind]
    smallest = 1e-9 * max(recorded.values())
    for name, norm in norms[kind].items():
        assert norm == pytest.approx(recorded.get(name, 0.0), rel=1e-6, abs=smallest), name
    assert set(recorded) <= set(norms[kind])
