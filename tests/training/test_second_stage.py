import pytest
import torch

from detr import weights
from detr.training import train as program
from detr.training.second_stage import FIRST
from detr.training.train import train

RESUME = "resume.safetensors"

pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture
def measured(monkeypatch):
    """Evaluations give these AP, one after the other; a run that goes on goes on with them."""

    def say_so(*values):
        left = list(values)

        class Metrics:
            def __init__(self, ap):
                self.ap = ap

            def as_dict(self):
                return {"AP": self.ap}

        monkeypatch.setattr(program, "validate", lambda *_, **__: (Metrics(left.pop(0)), None))
        monkeypatch.setattr(program, "draw_evaluation", lambda *_: [])

    return say_so


def run(recipe, sets, out, **options):
    said = []
    train(recipe, **sets, out=out, device="cpu", workers=0, say=said.append, **options)
    return [line for line in said if line.startswith("second stage")]


def counters_of(folder):
    return weights.read(folder / RESUME).metadata["resume"]


def same(one, other, part):
    ours, theirs = weights.read(one).state, weights.read(other).state
    names = [name for name in ours if name.startswith(part)]
    return bool(names) and all(torch.equal(ours[name], theirs[name]) for name in names)


def test_the_second_stage_starts_from_the_best_epoch_of_the_first(recipe_with, small_sets, tmp_path, measured):
    measured(0.1, 0.3, 0.2, 0.4, 0.5)
    said = run(recipe_with(epochs=5, second_stage={"epoch": 3, "decay": 0.8}), small_sets, tmp_path)
    assert said == ["second stage: from epoch 2, the best of the first; decay of the average 0.8"]
    assert weights.read(tmp_path / FIRST).metadata["resume"]["epoch"] == 2
    assert counters_of(tmp_path)["decay"] == 0.8
    assert counters_of(tmp_path)["best_of_stage"] == 0.5


def test_an_epoch_that_got_no_better_goes_back_and_lowers_the_decay(recipe_with, small_sets, tmp_path, measured):
    measured(0.3, 0.2, 0.1, 0.05, 0.15)
    recipe = recipe_with(epochs=5, second_stage={"epoch": 1, "decay": 0.8, "less": 0.1})
    said = run(recipe, small_sets, tmp_path)
    # Epoch 2 got no better than 0.3. Epoch 3 has nothing to be compared with, epoch 4 is worse, epoch 5 is new again.
    assert [line.rpartition(" ")[2] for line in said] == ["0.8", "0.7", "0.6"]
    assert counters_of(tmp_path)["best_of_stage"] == 0.15
    assert weights.read(tmp_path / "best.safetensors").metadata["epoch"] == 1


def test_going_back_brings_everything_back(recipe_with, small_sets, tmp_path, measured):
    measured(0.3, 0.2)
    recipe = recipe_with(epochs=2, second_stage={"epoch": 1}, average={"decay": 0.9})
    said = run(recipe, small_sets, tmp_path)
    assert [line.rpartition(" ")[2] for line in said] == ["0.9", "0.9"]  # the decay stays what it was
    for part in ("network.", "average.", "optimizer."):
        assert same(tmp_path / FIRST, tmp_path / RESUME, part)
    assert not same(tmp_path / "best.safetensors", tmp_path / "last.safetensors", "queries.")


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_resumed_in_either_stage_ends_as_if_never_stopped(recipe_with, small_sets, tmp_path, measured, stop):
    values, stage = (0.3, 0.2, 0.1, 0.05), {"epoch": 1, "decay": 0.8, "less": 0.1}
    measured(*values)
    run(recipe_with(epochs=4, second_stage=stage), small_sets, tmp_path / "whole")
    measured(*values)
    run(recipe_with(epochs=stop, second_stage=stage), small_sets, tmp_path / "parts")
    run(recipe_with(epochs=4, second_stage=stage), small_sets, tmp_path / "parts", resume=True)
    assert counters_of(tmp_path / "whole") == counters_of(tmp_path / "parts")
    for part in ("network.", "average.", "optimizer."):
        assert same(tmp_path / "whole" / RESUME, tmp_path / "parts" / RESUME, part)


def test_without_evaluations_only_the_average_changes(recipe_with, small_sets, tmp_path):
    sets = {**small_sets, "val_set": None}
    said = run(recipe_with(epochs=2, second_stage={"epoch": 1, "decay": 0.8}), sets, tmp_path)
    assert said == [
        "second stage: nothing was evaluated before, so it goes on with what there is; decay of the average 0.8"
    ]
    assert counters_of(tmp_path)["decay"] == 0.8


def test_a_first_stage_that_is_gone_is_said(recipe_with, small_sets, tmp_path, measured):
    measured(0.3, 0.2)
    run(recipe_with(epochs=1), small_sets, tmp_path)
    recipe = recipe_with(epochs=2, second_stage={"epoch": 1}, average={"decay": 0.9})
    said = run(recipe, small_sets, tmp_path, resume=True, allow_changes=True)
    assert f"{FIRST} is gone" in said[0] and said[0].endswith("decay of the average 0.9")
