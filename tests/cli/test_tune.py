from pathlib import Path

import pytest
from click.testing import CliRunner

from detr.cli.tune import command
from detr.errors import InputError, UsageError

pytest.importorskip("optuna")


def detr_tune(*words):
    return CliRunner().invoke(command, [*words], catch_exceptions=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from detr.data.shapes import make_shapes

    return str(make_shapes(tmp_path_factory.mktemp("cli") / "set", images=4, val_images=2, size=64, video=False))


@pytest.fixture
def small(small_recipe_text, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(small_recipe_text)
    return str(path)


def test_a_search_trains_and_writes_the_best_recipe(small, data, tmp_path, as_told):
    project = tmp_path / "runs"
    done = detr_tune(
        small, "--data", data, "--search", "train.optimizer.lr=1e-4..1e-3:log", "--trials", "1", "--workers", "0",
        "--device", "cpu", "--project", str(project), "--name", "one", "--json",
    )  # fmt: skip
    best = project / "tune" / "one" / "best.yaml"
    assert done.exit_code == 0 and f"detr train {best} --data {data}" in done.stderr
    said = as_told(done.stdout)
    assert (said["recipe"], said["trial"]) == (str(best), 0) and said["settings"][0].startswith("train.optimizer.lr=")
    from detr.training.recipe import load_recipe

    assert 1e-4 <= load_recipe(best).train.optimizer.lr <= 1e-3
    trained = project / "tune" / "one" / "train" / "trial-000"
    assert (trained / "best.safetensors").is_file() and not list(Path(trained).glob("resume*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--search", "train.optimiser.lr=1e-5..1e-3"], "did you mean 'optimizer'"),
        (["--search", "augment.flip=0,2"], "augment.flip"),
        (["--search", "train.batch=0..8"], "train.batch"),
        ([], "nothing to search in"),
    ],
)
def test_what_no_recipe_allows_is_refused_before_any_training(small, data, tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        detr_tune(small, "--data", data, "--project", str(tmp_path / "runs"), *words)
    assert not (tmp_path / "runs").exists()


def test_a_search_without_any_result_fails(small, data, tmp_path, monkeypatch):
    class Failing:
        def __init__(self, words, *, project, name):
            pass

        def epochs(self):
            raise InputError("no memory left")

        def stop(self):
            pass

    monkeypatch.setattr("detr.tuning.trial.TrainingProcess", Failing)
    words = ["--search", "augment.flip=0,1", "--trials", "1", "--project", str(tmp_path)]
    with pytest.raises(InputError, match="no trial came to its end"):
        detr_tune(small, "--data", data, *words)


def test_optuna_is_asked_for_by_its_line(small, data, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'detr-toolkit\[tune\]'"):
        detr_tune(small, "--data", data, "--search", "augment.flip=0,1")
