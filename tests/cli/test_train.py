import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from detr.cli.train import command
from detr.errors import InputError, UsageError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from detr.data.shapes import make_shapes

    return str(make_shapes(tmp_path_factory.mktemp("cli") / "set", images=4, val_images=2, size=64, video=False))


@pytest.fixture
def small(small_recipe_text, tmp_path, monkeypatch):
    monkeypatch.setattr("detr.evaluation.plots.available", lambda: False)
    monkeypatch.setattr("detr.training.told.journal._tensorboard", lambda folder: None)
    path = tmp_path / "small.yaml"
    path.write_text(small_recipe_text)
    return str(path)


def detr_train(*words):
    return CliRunner().invoke(command, [*words], catch_exceptions=False)


def test_training_ends_with_the_folder_and_what_to_do_next(small, data, tmp_path, as_told):
    done = detr_train(
        small, "--data", data, "--workers", "0", "--project", str(tmp_path / "runs"), "--name", "one", "--json"
    )
    summary = as_told(done.stdout)
    assert summary["folder"] == str(tmp_path / "runs" / "train" / "one")
    assert (summary["epochs"], summary["steps"]) == (1, 2)
    assert "detr val --weights" in done.stderr and "detr predict" in done.stderr
    again = [small, "--data", data, "--project", str(tmp_path / "runs"), "--name", "one"]
    with pytest.raises(UsageError, match="already holds a run"):
        detr_train(*again)
    more = detr_train("--resume", summary["folder"], "--epochs", "2", "--workers", "0", "--save-every", "1")
    assert "going on after epoch 1" in more.output
    proof = detr_train("--resume", summary["folder"], "--workers", "0", "--check")
    assert "4 steps after step 4, taken twice: all" in proof.output
    with pytest.raises(InputError, match=r"train.seed was 0, is 3; .*--allow-changes"):
        detr_train("--resume", summary["folder"], "--seed", "3", "--workers", "0")
    anyway = detr_train("--resume", summary["folder"], "--seed", "3", "--workers", "0", "--allow-changes")
    assert "warning: train.seed was 0, is 3" in anyway.output


def test_what_torchrun_starts_anew_goes_on_with_its_run(small, data, tmp_path, monkeypatch):
    words = [small, "--data", data, "--workers", "0", "--project", str(tmp_path)]
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(UsageError, match="torchrun --max-restarts needs --name"):
        detr_train(*words)
    words += ["--name", "one"]
    folder = tmp_path / "train" / "one"
    folder.mkdir(parents=True)
    (folder / "data.txt").write_text("left by a start that was killed before its first state\n")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert "going on" not in detr_train(*words).output
    again = detr_train(*words)
    assert "going on after epoch 1 (2 steps)" in again.output
    assert f"everything is in {folder}" in again.output
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(UsageError, match="already holds a run"):
        detr_train(*words)


def test_an_unknown_place_to_log_to_is_refused_before_any_work(small, data, tmp_path):
    with pytest.raises(UsageError, match=r"--log mlfow: .* did you mean 'mlflow'"):
        detr_train(small, "--data", data, "--project", str(tmp_path / "runs"), "--log", "mlfow")
    assert not (tmp_path / "runs").exists()


def test_the_names_of_files_are_those_of_the_engine():
    from detr.cli import going_on, train
    from detr.training.saved import checkpoint, generations

    assert (train.BEST, going_on.RECIPE, going_on.DATA) == (checkpoint.BEST, checkpoint.RECIPE, checkpoint.DATA)
    assert going_on.STATES == (checkpoint.RESUME, generations.PREVIOUS)


def test_annotations_edited_between_are_refused_in_one_line(small, data, tmp_path):
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    project = ["--data", str(copy), "--workers", "0", "--project", str(tmp_path), "--name", "one"]
    detr_train(small, *project)
    annotations = next(copy.rglob("*train*.json"))
    tree = json.loads(annotations.read_text())
    tree["annotations"][0]["bbox"][0] += 1
    annotations.write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"^\S+resume.safetensors: the train annotations were edited since; [^\n]*$"):
        detr_train("--resume", str(tmp_path / "train" / "one"), "--epochs", "2", "--workers", "0")


def test_more_loader_processes_than_help_are_said_once(detr_program):
    code, _, err = detr_program("train", "--workers", 1000)
    assert code == 2 and err.count("warning: --workers 1000: ") == 1 and "more processes only wait" in err
    assert "warning" not in detr_program("train", "--workers", 1)[2]


def test_an_option_that_is_a_setting_here_is_told_so(detr_program):
    code, _, err = detr_program("train", "rtdetr-r18", "--lr", "1e-3")
    said = "No such option '--lr'; it is a setting of the recipe, such as train.optimizer.lr=1e-4"
    assert (code, err) == (2, f"error: {said}\n")


@pytest.mark.parametrize(("word", "ours"), [("model=rtdetr-r18", "rtdetr-r18"), ("epochs=3", "--epochs 3")])
def test_options_of_other_programs_are_told_how_they_are_written_here(detr_program, word, ours):
    assert detr_program("train", word)[::2] == (2, f"error: {word}: here that is written {ours}\n")


def test_options_become_settings_of_the_recipe(small):
    from detr.cli.train import _as_words, _recipe

    words = _as_words({"epochs": 3, "amp": "off", "batch": None})
    recipe = _recipe(small, words, resume=None, imgsz=128, finetune=False)
    assert (recipe.train.epochs, recipe.train.amp, recipe.train.batch) == (3, "off", 2)
    assert (recipe.model.input.height, recipe.model.input.width) == (128, 128)
    assert recipe.train.scales == (128, 192)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs --data"),
        (["rtdetr-r81", "--data", "."], "did you mean 'rtdetr-r18'"),
        (["rtdetr-r18", "train.epoch=3", "--data", "."], "did you mean 'epochs'"),
        (["rtdetr-r18", "--data", ".", "--imgsz", "100"], "the nearest is 96"),
        (["rtdetr-r18", "--data", ".", "--device", "gpu"], "expected auto, cpu"),
        (["rtdetr-r18", "--data", "no/such/folder"], "no/such/folder"),
        (["--data", "."], "which recipe"),
        (["--resume", "nowhere", "--data", "."], "no run is there"),
        (["--resume", "nowhere", "--data", ".", "--name", "x"], "belong to a new one"),
        (["--resume", "nowhere"], "no run is there"),
        (["rtdetr-r18", "--data", ".", "--allow-changes"], "about a run to go on with"),
        (["rtdetr-r18", "--data", ".", "--check"], "about a run to go on with"),
        (["rtdetr-r18", "--data", ".", "--save-every", "often"], "expected a time such as 10m"),
        (["rtdetr-r18", "--data", ".", "--weights", "best.onnx"], "best.onnx is an exported file, .* not trained"),
        (["rtdetr-r18", "--data", ".", "--teacher", "best.engine"], "best.engine is an exported file"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(words, message):
    with pytest.raises(UsageError, match=message):
        detr_train(*words)


def test_what_stands_in_the_wrong_place_is_told_its_option(tmp_path):
    (tmp_path / "best.safetensors").write_bytes(bytes(300_000))
    with pytest.raises(UsageError, match=rf"train needs --data: .*; did you mean --data {tmp_path}\?$"):
        detr_train("rtdetr-r18", str(tmp_path))
    said = f"^{tmp_path}/best.safetensors: larger than a recipe can be .*; weights are for --weights$"
    with pytest.raises(UsageError, match=said):
        detr_train(str(tmp_path / "best.safetensors"), "--data", str(tmp_path))


def test_a_run_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "train-2").mkdir()
    (tmp_path / "train-2" / "recipe.yaml").write_text("")
    with pytest.raises(UsageError, match=r"no run is there .*; did you mean 'train-2'"):
        detr_train("--resume", str(tmp_path / "train_2"))
    with pytest.raises(UsageError, match=f"did you mean '{tmp_path / 'train-2'}'"):
        detr_train("--resume", str(tmp_path / "train-2" / "best.safetensors"))


def test_an_output_that_cannot_be_written_is_said_first(small, data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        detr_train(small, "--data", data, "--project", str(tmp_path / "file"))


def test_weights_that_are_none_leave_no_empty_run(small, data, tmp_path):
    with pytest.raises(UsageError, match="nothing-here"):
        detr_train(small, "--data", data, "--project", str(tmp_path / "runs"), "--weights", "nothing-here")
    assert list((tmp_path / "runs").rglob("*")) in ([], [tmp_path / "runs" / "train"])


def test_an_automatic_batch_is_said_and_kept_in_the_recipe_as_a_flag_is(small, data, tmp_path):
    words = ["--batch", "auto", "--deterministic", "--workers", "0", "--project", str(tmp_path)]
    done = detr_train(small, "--data", data, *words)
    assert "batch 1: " in done.output  # four images: more would make still fewer steps an epoch
    recipe = (tmp_path / "train" / "train" / "recipe.yaml").read_text()
    assert "batch: 1\n" in recipe and "deterministic: true\n" in recipe


@pytest.mark.parametrize("batch", ["0", "-1", "many", "1.5"])
def test_a_batch_is_a_number_or_auto(small, data, batch):
    with pytest.raises(UsageError, match="expected a whole number from 1, or auto"):
        detr_train(small, "--data", data, f"--batch={batch}")


def test_a_teacher_is_part_of_the_recipe(small, data, tmp_path):
    detr_train(small, "--data", data, "--workers", "0", "--project", str(tmp_path), "--name", "large")
    large = tmp_path / "train" / "large" / "best.safetensors"
    done = detr_train(small, "--data", data, "--teacher", str(large), "--workers", "0", "--project", str(tmp_path))
    assert f"{large} teaches 10 of 10 classes" in done.output
    assert f"weights: {large}\n" in (tmp_path / "train" / "train" / "recipe.yaml").read_text()
