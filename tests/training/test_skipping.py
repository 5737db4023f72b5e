"""A step with a number that is not finite is left out as if it had never been, and training ends after many of them."""

import math

import pytest
import torch

from detr.training import step as stepping
from detr.training import train as program
from detr.training.repeating import differing
from detr.training.replay import FILE
from detr.training.saved.checkpoint import RESUME, state_tensors
from detr.training.told.journal import read
from detr.training.told.watch import Diverged
from detr.training.train import train

pytestmark = pytest.mark.usefixtures("plain")


def run(recipe, sets, out, **options):
    said = []
    return train(recipe, **sets, out=out, device="cpu", workers=0, say=said.append, **options), said


def image(run, pieces):
    def hole(module, given):
        given[0][0, 1, 7, 7] = math.nan

    return run.network.backbone.register_forward_pre_hook(hole)


def logit(run, pieces):
    def overflow(module, given, answer):
        answer = answer.clone()
        answer[0, 0, 0] = -math.inf  # a loss that is finite all the same
        return answer

    return run.network.decoder.score_heads[-1].register_forward_hook(overflow)


def gradient(run, pieces):
    weight = run.network.decoder.score_heads[1].weight
    return weight.register_hook(lambda values: values * math.nan)


@pytest.fixture
def broken_at(monkeypatch):
    """Makes the steps of these numbers, counted from 1, such as one of the functions above says."""

    def arrange(fault, *numbers):
        original = stepping.gradients

        def gradients(run, pieces):
            if run.counters.step + 1 not in numbers:
                return original(run, pieces)
            hook = fault(run, pieces)
            try:
                return original(run, pieces)
            finally:
                if hook is not None:
                    hook.remove()

        monkeypatch.setattr(stepping, "gradients", gradients)

    return arrange


@pytest.fixture
def states(monkeypatch):
    """All tensors before the first step and after each one."""
    seen = []

    def look(run):
        tensors = state_tensors(run.network, run.average, run.optimizer, run.names)
        seen.append({name: value.clone() for name, value in tensors.items()})

    def take_step(run, pieces, original=program.take_step):
        if not seen:
            look(run)
        output = original(run, pieces)
        look(run)
        return output

    monkeypatch.setattr(program, "take_step", take_step)
    return seen


@pytest.mark.parametrize("fault", [image, logit, gradient])
def test_nothing_has_changed_after_a_step_left_out(recipe_with, small_sets, tmp_path, broken_at, states, fault):
    broken_at(fault, 2, 4)
    summary, _ = run(recipe_with(), small_sets, tmp_path)
    assert (summary.steps, summary.skipped) == (6, 2)
    for step in range(1, 7):
        changed = differing(states[step - 1], states[step])
        if step in (2, 4):
            assert not changed
        else:
            assert any("running_mean" in name for name in changed)
            assert any(name.startswith("average.") for name in changed) and len(changed) > 100


def test_a_step_left_out_at_the_start_leaves_the_optimizer_without_a_step(
    recipe_with, small_sets, tmp_path, broken_at, states
):
    broken_at(image, 1)
    run(recipe_with(epochs=1), small_sets, tmp_path)
    assert not [n for n in differing(states[0], states[1]) if not n.startswith("optimizer.") and n in states[0]]
    assert not any(value.any() for name, value in states[1].items() if name.startswith("optimizer."))


def test_one_line_says_step_module_and_files_and_the_journal_has_it(recipe_with, small_sets, tmp_path, broken_at):
    broken_at(gradient, 2)
    _, said = run(recipe_with(), small_sets, tmp_path)
    (line,) = [line for line in said if "left out" in line]
    names = small_sets["train_set"].annotations.file_names
    assert line.startswith(
        "warning: step 2 is left out, and nothing has changed by it: the norm of the gradients is nan"
    )
    assert f"take it again with: detr train --replay {tmp_path / FILE} (1 in a row; at most 10 may be)" in line
    (row,) = [row for row in read(tmp_path / "metrics.jsonl") if row["event"] == "skipped"]
    assert row["step"] == 2 and row["in_a_row"] == 1 and len(row["images"]) == 2 and set(row["images"]) <= set(names)
    assert all(name in line for name in row["images"])
    assert [row.get("skipped") for row in read(tmp_path / "metrics.jsonl") if row["event"] == "epoch"] == [1, 1]


def test_the_module_and_the_image_where_it_began_are_named(recipe_with, small_sets, tmp_path, monkeypatch, broken_at):
    def overflows(run, pieces):
        def overflow(module, given, answer):
            answer[1] = math.inf

        run.network.encoder.bottom_up[0].register_forward_hook(overflow)

    broken_at(overflows, 3)
    with pytest.raises(
        Diverged, match=r"step 6: 4 steps in a row .*not finite first in encoder.bottom_up.0.* of image"
    ):
        run(recipe_with(skip_at_most=3), small_sets, tmp_path)


def test_training_ends_after_too_many_in_a_row_with_advice(recipe_with, small_sets, tmp_path, broken_at, states):
    broken_at(image, 2, 4, 5, 6)
    with pytest.raises(
        Diverged, match=r"step 6: 3 steps in a row could not be taken: .*a smaller learning rate"
    ) as end:
        run(recipe_with(epochs=4, skip_at_most=2), small_sets, tmp_path)
    assert "\n" not in str(end.value) and f"detr train --resume {tmp_path} --allow-changes" in str(end.value)
    assert len(states) == 7 and not differing(states[3], states[6])


def test_nothing_is_left_out_where_none_may_be(recipe_with, small_sets, tmp_path, broken_at):
    broken_at(image, 2)
    with pytest.raises(Diverged, match="step 2: 1 steps in a row"):
        run(recipe_with(skip_at_most=0), small_sets, tmp_path)


def test_a_weight_that_is_not_finite_ends_it_at_once(recipe_with, small_sets, tmp_path, broken_at):
    def damaged(run, pieces):
        with torch.no_grad():
            run.network.decoder.score_heads[-1].bias.fill_(math.nan)

    broken_at(damaged, 5)
    began = r"not finite first in the parameter decoder.score_heads.1.bias"
    with pytest.raises(Diverged, match=rf"step 5: the weights themselves are not finite.*{began}"):
        run(recipe_with(), small_sets, tmp_path)


def test_a_training_goes_on_over_steps_left_out_in_the_same_bytes(
    recipe_with, small_sets, tmp_path, broken_at, stopped_after
):
    broken_at(image, 2, 3, 4)
    whole, _ = run(recipe_with(), small_sets, tmp_path / "whole")
    with stopped_after(3):
        run(recipe_with(), small_sets, tmp_path / "parts")
    parts, said = run(recipe_with(), small_sets, tmp_path / "parts", resume=True)
    assert whole.skipped == parts.skipped == 3
    assert any("(3 in a row" in line for line in said)  # two of them before the pause
    assert (tmp_path / "parts" / RESUME).read_bytes() == (tmp_path / "whole" / RESUME).read_bytes()


def test_a_scaler_leaves_out_what_overflows_without_a_word(recipe_with, small_sets, tmp_path, broken_at, monkeypatch):
    """With gradients of 16 bits it is part of the method that some are infinite."""
    original = program.build_run

    def with_scaler(*given, **options):
        made = original(*given, **options)
        made.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        made.watch._overflow_is_fine = True
        return made

    monkeypatch.setattr(program, "build_run", with_scaler)
    broken_at(gradient, 2, 3, 4, 5)
    summary, said = run(recipe_with(), small_sets, tmp_path)
    # The scale falls from 4 to 2 and 1; from there on it is not to blame.
    assert summary.skipped == len([line for line in said if "left out" in line]) == 2
