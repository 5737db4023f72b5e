"""Two processes that keep a part of the weights each (FSDP2) train as two that keep all of them."""

from pathlib import Path

import pytest

from detr import weights
from detr.errors import UsageError
from detr.training.told.journal import read
from tests import programs

PROGRAM = Path(__file__).parent / "in_parts.py"


@pytest.fixture(scope="module")
def trainings(small_shapes, tmp_path_factory):
    out = tmp_path_factory.mktemp("sharded")
    for done in programs.run_team(PROGRAM, small_shapes, out, size=2):
        assert done.returncode == 0, done.stderr
    return out


def rows(folder):
    return [row for row in read(folder / "metrics.jsonl") if row["event"] == "epoch"]


def test_losses_and_ap_of_each_epoch_are_the_same(trainings):
    whole, parts = rows(trainings / "whole"), rows(trainings / "parts")
    assert len(whole) == len(parts) == 2
    for one, other in zip(whole, parts, strict=True):
        for name in (name for name in one if name.startswith(("loss", "AP"))):
            assert other[name] == pytest.approx(one[name], rel=1e-5, abs=1e-6), name


def test_weights_average_and_optimizer_are_saved_whole(trainings):
    whole, parts = (weights.read(trainings / name / "resume.safetensors") for name in ("whole", "parts"))
    assert whole.state.keys() == parts.state.keys()
    assert any(name.startswith("optimizer.exp_avg") for name in whole.state)
    for name, value in whole.state.items():
        assert parts.state[name].shape == value.shape
        far = (parts.state[name] - value).abs().double().mean()  # Adam's step may turn where a gradient is all but 0
        assert far < 1e-5, name
    best = weights.read(trainings / "parts" / "best.safetensors")
    assert set(best.state) == {name[8:] for name in whole.state if name.startswith("network.")}


def test_a_training_in_parts_that_is_gone_on_with_ends_in_the_same_bytes(trainings):
    for name in ("resume.safetensors", "last.safetensors", "best.safetensors"):
        assert (trainings / "again" / name).read_bytes() == (trainings / "parts" / name).read_bytes(), name


def test_each_process_has_its_part_of_the_weights_alone(trainings):
    parts = [float((trainings / f"part-{rank}").read_text()) for rank in range(2)]
    assert sum(parts) == pytest.approx(1) and max(parts) < 0.6


def test_a_step_that_is_broken_in_one_process_is_left_out_in_both(trainings):
    (row,) = [row for row in read(trainings / "broken" / "metrics.jsonl") if row["event"] == "skipped"]
    assert row["step"] == 2 and row["in_a_row"] == 1
    assert rows(trainings / "broken")[-1]["skipped"] == 1


@pytest.mark.parametrize("other", [{"compile": True}, {"channels_last": True}, {"activation_checkpointing": True}])
def test_what_does_not_go_together_is_refused(recipe_with, other):
    with pytest.raises(UsageError, match=f"train.shard and train.{next(iter(other))} exclude each other"):
        recipe_with(shard=True, **other)
