import json
import os
import signal
from dataclasses import replace
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch

from detr import weights
from detr.classes import Classes
from detr.data.coco import CocoDataset
from detr.errors import InputError, UsageError
from detr.models import load_model
from detr.runtime.distributed import Team
from detr.training import step as stepping
from detr.training import train as program
from detr.training.run import precision_of
from detr.training.saved.generations import newest
from detr.training.saved.pace import Pace
from detr.training.step import seed_of_step, share_of_batch, shares_of_pieces
from detr.training.told.journal import read
from detr.training.train import train
from detr.training.words import in_columns, in_words

ALONE = Team(0, 1, torch.device("cpu"))
FILES = ("best.safetensors", "last.safetensors", "resume.safetensors")


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """Curves and TensorBoard take longer than these trainings; one test has them."""
    if "with_plots" not in request.node.name:
        monkeypatch.setattr(program.plots, "available", lambda: False)
        monkeypatch.setattr("detr.training.told.journal._tensorboard", lambda folder: None)


def run(recipe, sets, out, **options):
    said = []
    result = train(recipe, **sets, out=out, device="cpu", workers=0, say=said.append, **options)
    return result, "\n".join(said)


def same_state(one, other):
    ours, theirs = weights.read(one).state, weights.read(other).state
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def interrupted_before_step(monkeypatch, number, step):
    """The signal comes while that step is computed."""
    original = program.take_step

    def step_with_signal(run, pieces):
        if run.counters.step == step - 1:
            os.kill(os.getpid(), number)
        return original(run, pieces)

    monkeypatch.setattr(program, "take_step", step_with_signal)


def test_a_run_leaves_weights_journal_and_pictures_with_plots(recipe_with, small_sets, tmp_path):
    result, said = run(recipe_with(), small_sets, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {*FILES, "metrics.jsonl", "metrics.csv", "recipe.yaml", "batch0.jpg", "results.png"} <= names
    assert {"labels.png", "samples.jpg", "confusion.png", "confusion_shares.png", "curves.png"} <= names
    assert (result.epochs, result.steps) == (2, 6)
    assert "backbone norms" in said and "circle" in said and "epoch   2/2" in said
    first, last = (line for line in said.splitlines() if line.startswith("epoch "))
    assert first.endswith(" left") and not last.endswith(" left")
    epochs = [row for row in read(tmp_path / "metrics.jsonl") if row["event"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert {"loss", "loss_vfl", "AP", "AP50", "lr", "train_seconds"} <= epochs[0].keys()


def test_what_is_saved_is_the_average_and_says_what_it_is(recipe_with, small_sets, trained):
    recipe, folder = recipe_with(epochs=1), trained(1)
    checkpoint = weights.read(folder / "last.safetensors")
    assert checkpoint.classes == small_sets["train_set"].classes
    assert checkpoint.metadata["recipe"] == json.loads(json.dumps(recipe.as_tree()))
    state = weights.read(folder / "resume.safetensors").state
    assert all(torch.equal(value, state[f"average.{name}"]) for name, value in checkpoint.state.items())
    network = load_model(str(folder / "last.safetensors"))
    assert network.config == recipe.model
    assert not network.training


def test_the_same_seed_gives_the_same_weights(recipe_with, small_sets, tmp_path, trained):
    run(recipe_with(epochs=1), small_sets, tmp_path / "same")
    run(recipe_with(epochs=1, seed=1), small_sets, tmp_path / "other")
    assert same_state(trained(1) / FILES[2], tmp_path / "same" / FILES[2])
    assert not same_state(trained(1) / FILES[2], tmp_path / "other" / FILES[2])


def test_workers_change_nothing(recipe_with, small_sets, tmp_path, trained):
    train(recipe_with(epochs=1), **small_sets, out=tmp_path, device="cpu", workers=2, say=lambda line: None)
    assert same_state(trained(1) / FILES[2], tmp_path / FILES[2])


def test_a_run_resumed_after_an_epoch_ends_as_if_never_stopped(recipe_with, small_sets, tmp_path, trained):
    whole, parts = trained(2), copytree(trained(1), tmp_path / "parts")
    result, said = run(recipe_with(epochs=2), small_sets, parts, resume=True)
    assert "going on after epoch 1" in said
    assert result.epochs == 2
    for name in FILES:
        assert same_state(whole / name, parts / name)
    rows = [[row["step"] for row in read(folder / "metrics.jsonl")] for folder in (whole, parts)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_acts(recipe_with, small_sets, tmp_path, monkeypatch, trained, number):
    class Stopped(BaseException):
        pass

    def stop(*_):
        raise Stopped

    whole = trained(2)
    before = signal.signal(number, stop)
    try:
        with monkeypatch.context() as patched, pytest.raises(Stopped):
            interrupted_before_step(patched, number, step=2)
            run(recipe_with(), small_sets, tmp_path)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert weights.read(tmp_path / FILES[2]).metadata["resume"]["step_in_epoch"] == 2
    _, said = run(recipe_with(), small_sets, tmp_path, resume=True)
    assert "2 steps of the next" in said
    assert same_state(whole / FILES[2], tmp_path / FILES[2])


def test_pieces_together_give_the_gradient_of_the_whole_batch(recipe_with, small_sets, tmp_path, monkeypatch):
    """Without denoising (it draws by batch) and with norms that don't look at the batch."""
    found = {}
    for pieces in (1, 2):
        recipe = recipe_with(epochs=1, batch=6, accumulate=pieces)
        model = recipe.model.model_copy(update={"num_denoising": 0})
        original = stepping.gradients

        def keep(run, batches, pieces=pieces, original=original):
            for module in run.network.modules():
                module.training = not isinstance(module, torch.nn.BatchNorm2d)
            result = original(run, batches)
            found[pieces] = {name: value.grad.clone() for name, value in run.network.named_parameters()
                             if value.grad is not None}  # fmt: skip
            return result

        with monkeypatch.context() as patched:
            patched.setattr(stepping, "gradients", keep)
            run(recipe.model_copy(update={"model": model}), small_sets, tmp_path / str(pieces))
    assert found[1].keys() == found[2].keys() and len(found[1]) > 20
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[2][name], gradient, rtol=1e-3, atol=1e-5)


def test_it_stops_early_when_nothing_gets_better(recipe_with, small_sets, tmp_path, monkeypatch):
    class Nothing:
        def as_dict(self):
            return {"AP": 0.0}

    monkeypatch.setattr(program, "validate", lambda *_, **__: (Nothing(), None))
    monkeypatch.setattr(program, "draw_evaluation", lambda *_: [])
    result, _ = run(recipe_with(epochs=9, patience=2), small_sets, tmp_path)
    assert (result.epochs, result.stopped_early, result.best_epoch) == (3, True, 1)
    again, _ = run(recipe_with(epochs=9, patience=2), small_sets, tmp_path, resume=True)
    assert (again.epochs, again.stopped_early, again.steps) == (3, True, result.steps)
    longer, said = run(recipe_with(epochs=9, patience=3), small_sets, tmp_path, resume=True)
    assert (longer.epochs, longer.stopped_early) == (4, True)
    assert "note: train.patience was 2, is 3" in said


def test_the_best_stays_when_a_resumed_run_is_worse(recipe_with, small_sets, tmp_path, monkeypatch):
    class Measured:
        def __init__(self, ap):
            self.ap = ap

        def as_dict(self):
            return {"AP": self.ap}

    monkeypatch.setattr(program, "validate", lambda *_, **__: (Measured(0.9), None))
    monkeypatch.setattr(program, "draw_evaluation", lambda *_: [])
    run(recipe_with(epochs=1), small_sets, tmp_path)
    best = (tmp_path / "best.safetensors").read_bytes()
    monkeypatch.setattr(program, "validate", lambda *_, **__: (Measured(0.1), None))
    result, _ = run(recipe_with(epochs=2), small_sets, tmp_path, resume=True)
    assert (result.best, result.best_epoch) == (0.9, 1)
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_a_folder_removed_while_training_runs_is_made_anew_and_said(recipe_with, small_sets, tmp_path, monkeypatch):
    original, out = program.take_step, tmp_path / "run"

    def step_and_remove(run, pieces):
        if run.counters.epoch == 1 and run.counters.step_in_epoch == 1:
            rmtree(out)
        return original(run, pieces)

    monkeypatch.setattr(program, "take_step", step_and_remove)
    result, said = run(recipe_with(epochs=2), small_sets, out, data="my-data")
    assert said.count("was removed while training ran") == 1
    assert result.best_epoch == 2 and weights.read(out / "best.safetensors").metadata["epoch"] == 2
    assert said.count("best.safetensors is gone (epoch 1, AP ") == 1
    assert (out / "data.txt").read_text() == "my-data\n" and (out / "origin.jsonl").is_file()
    assert [row["epoch"] for row in read(out / "metrics.jsonl") if row["event"] == "epoch"] == [1, 2]
    assert (out / "recipe.yaml").is_file() and newest(out, print).counters.epoch == 2


def test_a_frozen_backbone_stays_as_it_was_built(recipe_with, small_sets, tmp_path):
    run(recipe_with(epochs=1, freeze="backbone"), small_sets, tmp_path / "a")
    run(recipe_with(epochs=2, freeze="backbone"), small_sets, tmp_path / "b")
    one, other = (weights.read(tmp_path / name / FILES[2]).state for name in "ab")
    frozen = [name for name in one if name.startswith("network.backbone")]
    assert frozen and all(torch.equal(one[name], other[name]) for name in frozen)
    assert not torch.equal(one["network.queries.embed.weight"], other["network.queries.embed.weight"])


def test_without_a_val_split_the_last_weights_are_the_best(recipe_with, small_sets, tmp_path):
    result, _ = run(recipe_with(epochs=1), {**small_sets, "val_set": None}, tmp_path)
    assert result.best is None
    assert same_state(tmp_path / "best.safetensors", tmp_path / "last.safetensors")


def test_bf16_trains_on_a_cpu(recipe_with, small_sets, tmp_path):
    run(recipe_with(epochs=1, amp="bf16", channels_last=True), small_sets, tmp_path)
    assert weights.read(tmp_path / "last.safetensors").state["queries.embed.weight"].dtype == torch.float32


def test_too_few_queries_are_warned_of(recipe_with, small_sets, tmp_path):
    recipe = recipe_with(epochs=1)
    model = recipe.model.model_copy(update={"num_queries": 2, "num_denoising": 0})
    with pytest.warns(UserWarning, match="for 2 queries"):
        _, said = run(recipe.model_copy(update={"model": model}), small_sets, tmp_path)
    assert "more than the model's 2 queries" in said


def test_frozen_norms_without_weights_are_warned_of(recipe_with, small_sets, tmp_path):
    recipe = recipe_with(epochs=1)
    backbone = recipe.model.backbone.model_copy(update={"frozen_norms": True})
    model = recipe.model.model_copy(update={"backbone": backbone})
    _, said = run(recipe.model_copy(update={"model": model}), small_sets, tmp_path)
    assert "no more than random" in said
    assert "--weights" not in said  # no release is as deep as this one


def test_resuming_another_model_names_the_first_differences(recipe_with, small_sets, tmp_path, trained):
    recipe, folder = recipe_with(epochs=1), copytree(trained(1), tmp_path / "run")
    encoder = recipe.model.encoder.model_copy(update={"hidden": 24})
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"encoder": encoder})})
    with pytest.raises(InputError, match=r"model.encoder.hidden was 16, is 24; .*--allow-changes"):
        run(other, small_sets, folder, resume=True)
    with pytest.raises(
        InputError, match=r"another model: encoder.attention.0.feed_forward.linear1.weight is \[16, 16\]"
    ):
        run(other, small_sets, folder, resume=True, allow_changes=True)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (lambda names: [*names, "new"], "'new' is new"),
        (lambda names: ["disc", *names[1:]], "the data has no 'circle' any more, and 'disc' is new"),
        (lambda names: names[::-1], "their order or their ids are others now"),
    ],
)
def test_resuming_with_other_classes_says_which_and_what_to_do(recipe_with, small_sets, tmp_path, trained, names, what):
    known = small_sets["train_set"].annotations
    changed = replace(known, classes=Classes.from_names(names(list(known.classes.names))))
    sets = {"train_set": CocoDataset(changed, small_sets["train_set"].images), "val_set": None}
    with pytest.raises(InputError, match=rf"was trained on other classes: {what}; .*best.safetensors --finetune"):
        run(recipe_with(), sets, copytree(trained(1), tmp_path / "run"), resume=True, allow_changes=True)


def test_edited_annotations_are_refused_in_one_line(recipe_with, small_sets, tmp_path, trained):
    folder = copytree(trained(1), tmp_path / "run")
    known = small_sets["train_set"].annotations
    moved = replace(known, boxes=known.boxes + np.array([1.0, 0, 0, 0]))
    sets = {**small_sets, "train_set": CocoDataset(moved, small_sets["train_set"].images)}
    with pytest.raises(InputError, match=r"the train annotations were edited since; .*--allow-changes") as refused:
        run(recipe_with(epochs=2), sets, folder, resume=True)
    assert "\n" not in str(refused.value)
    result, said = run(recipe_with(epochs=2), sets, folder, resume=True, allow_changes=True)
    assert "warning: the train annotations were edited since" in said
    assert result.epochs == 2


def test_a_run_stopped_without_warning_within_an_epoch_has_the_same_journal(
    recipe_with, small_sets, tmp_path, trained, stopped_after
):
    whole = trained(2)
    with stopped_after(5):
        run(recipe_with(epochs=2), small_sets, tmp_path, save_every=Pace(steps=2))
    _, said = run(recipe_with(epochs=2), small_sets, tmp_path, resume=True)
    assert "going on after epoch 1 and 2 steps of the next (5 steps)" in said
    for name in FILES:
        assert same_state(whole / name, tmp_path / name)
    untimed = [
        [{key: value for key, value in row.items() if "seconds" not in key} for row in read(folder / "metrics.jsonl")]
        for folder in (whole, tmp_path)
    ]
    assert untimed[0] == untimed[1]


def broken_off(*given, **options):
    raise KeyboardInterrupt


def test_an_evaluation_broken_off_costs_no_step(recipe_with, small_sets, tmp_path, trained, monkeypatch):
    whole = trained(1)
    with monkeypatch.context() as patched:
        patched.setattr(program, "SAVED_BEFORE_EVALUATION", 0.0)
        patched.setattr(program, "validate", broken_off)
        with pytest.raises(KeyboardInterrupt):
            run(recipe_with(epochs=1), small_sets, tmp_path)
    _, said = run(recipe_with(epochs=1), small_sets, tmp_path, resume=True)
    assert "going on after epoch 0 and 3 steps of the next (3 steps)" in said
    for name in FILES:
        assert same_state(whole / name, tmp_path / name)


def test_a_signal_leaves_an_evaluation_at_once_and_the_end_is_the_same(
    recipe_with, small_sets, tmp_path, trained, monkeypatch
):
    """Twice, the second time in what was gone on with."""
    asked = []

    class Signalled(program.TorchRunner):
        def __call__(self, images, padding=None):
            asked.append(len(images))
            os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(images, padding)

    recipe, before = recipe_with(epochs=2), signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(program, "TorchRunner", Signalled)
            for resume in (False, True):
                with pytest.raises(SystemExit, match="143"):
                    run(recipe, small_sets, tmp_path, resume=resume)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked == [2, 2]  # of three pictures, each time
    _, said = run(recipe, small_sets, tmp_path, resume=True)
    assert "going on after epoch 0 and 3 steps of the next (3 steps)" in said
    for name in FILES:
        assert (trained(2) / name).read_bytes() == (tmp_path / name).read_bytes()
    rows = [
        [{key: value for key, value in row.items() if "seconds" not in key} for row in read(folder / "metrics.jsonl")]
        for folder in (trained(2), tmp_path)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"channels_last": True, "freeze": "stage1"},
        {"amp": "bf16", "accumulate": 2},
        {"activation_checkpointing": True, "average": None},
        {"deterministic": True, "scales": [64, 96]},
        {"balance": 0.5, "optimizer": {"lr": 1.0e-3, "layer_decay": 0.7}},
        {"lora": {"rank": 2}},
    ],
    ids=" and ".join,
)
def test_whatever_the_settings_a_resumed_run_ends_as_if_never_stopped(
    recipe_with, small_sets, tmp_path, stopped_after, settings
):
    sets, recipe = {**small_sets, "val_set": None}, recipe_with(epochs=1, **settings)
    run(recipe, sets, tmp_path / "whole")
    with stopped_after(2):
        run(recipe, sets, tmp_path / "parts", save_every=Pace(steps=2))
    run(recipe, sets, tmp_path / "parts", resume=True)
    assert weights.read(tmp_path / "whole" / FILES[2]).metadata["resume"]["step"] == 3
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_the_folder_of_a_new_run_forgets_the_states_of_an_old_one(recipe_with, small_sets, tmp_path, trained):
    folder = copytree(trained(2), tmp_path / "run")
    run(recipe_with(epochs=1, seed=5), small_sets, folder)
    seeds = [weights.read(path).metadata["recipe"]["train"]["seed"] for path in folder.glob("resume*.safetensors")]
    assert seeds == [5, 5]


def test_the_name_of_the_data_is_kept_for_going_on(recipe_with, small_sets, tmp_path):
    run(recipe_with(epochs=1), small_sets, tmp_path, data="/some/where")
    assert (tmp_path / "data.txt").read_text() == "/some/where\n"


def test_resuming_where_no_run_is_says_so(recipe_with, small_sets, tmp_path):
    with pytest.raises(UsageError, match="nothing to go on from"):
        run(recipe_with(), small_sets, tmp_path, resume=True)


def test_a_batch_must_divide():
    assert share_of_batch(16, 2, 2) == 4
    with pytest.raises(UsageError, match="nearest that can: 15"):
        share_of_batch(16, 3, 1)


def test_pieces_count_by_their_targets():
    assert shares_of_pieces([7], ALONE) == [1.0]
    assert shares_of_pieces([3, 1], ALONE) == [0.75, 0.25]
    assert shares_of_pieces([0, 4], ALONE) == [0.25, 1.0]  # an empty piece's losses are over 1
    assert shares_of_pieces([0, 0], ALONE) == [1.0, 1.0]


def test_each_step_and_process_draws_on_its_own():
    seeds = {seed_of_step(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(3)}
    assert len(seeds) == 450
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_fp16_is_refused_on_a_cpu():
    assert precision_of("auto", torch.device("cpu")) is None
    assert precision_of("bf16", torch.device("cpu")) is torch.bfloat16
    with pytest.raises(UsageError, match="needs a GPU"):
        precision_of("fp16", torch.device("cpu"))


def test_seconds_in_words():
    assert [in_words(seconds) for seconds in (4.4, 200, 7500)] == ["4s", "3m20s", "2h05m"]


def test_a_line_gives_up_what_is_missed_least_to_fit_the_terminal():
    columns = {
        "epoch": ["epoch   1/12"], "loss": ["loss   6.1234"], "AP": ["AP 0.1234"], "AP50": ["AP50 0.2345", ""],
        "best": ["best 0.1234 (epoch 1)", "best 0.1234", ""], "lr": ["lr 1.00e-04", ""],
        "time": ["3m20s + 12s, about 40m12s left", "40m12s left"],
    }  # fmt: skip
    lines = {width: in_columns(columns, width) for width in (None, 120, 100, 80, 60, 20)}
    assert len(lines[None]) == 119 and lines[120] == lines[None]
    assert all(len(lines[width]) <= width for width in (100, 80, 60))
    assert lines[100].split("  ")[-1] == "3m20s + 12s, about 40m12s left" and "lr" not in lines[100]
    assert lines[80] == "epoch   1/12  loss   6.1234  AP 0.1234  best 0.1234 (epoch 1)  40m12s left"
    assert lines[60] == "epoch   1/12  loss   6.1234  AP 0.1234  40m12s left"
    assert lines[20] == lines[60]
