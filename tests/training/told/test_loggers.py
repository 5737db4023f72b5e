"""Weights & Biases and MLflow, stood in for by modules that note what they are told."""

import json
import sys
import threading
import time
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detr.errors import UsageError
from detr.training.told import loggers
from detr.training.told.journal import Journal
from detr.training.told.loggers import Tracker, chosen_logs, open_trackers

PIXELS = np.zeros((4, 6, 3), np.uint8)


def stand_in(monkeypatch, name, **parts):
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for key, value in parts.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def wandb(monkeypatch):
    told = []
    run = SimpleNamespace(
        id="abc", log=lambda values, step: told.append((step, values)), finish=lambda: told.append("finish")
    )
    module = stand_in(
        monkeypatch,
        "wandb",
        setup=lambda: SimpleNamespace(settings=SimpleNamespace(mode="offline")),
        login=lambda prompt: False,
        init=lambda **options: told.append(options) or run,
        Image=lambda pixels: ("image", pixels.shape),
    )
    module.told = told
    return module


@pytest.fixture
def mlflow(monkeypatch):
    told = []

    def start_run(**options):
        told.append(options)
        return SimpleNamespace(info=SimpleNamespace(run_id="m1"))

    module = stand_in(
        monkeypatch,
        "mlflow",
        start_run=start_run,
        log_params=lambda values: told.append(values),
        log_metrics=lambda values, step: told.append((step, values)),
        log_image=lambda pixels, artifact_file: told.append((artifact_file, pixels.shape)),
        end_run=lambda: told.append("end"),
    )
    module.told = told
    return module


def journal(folder, names, *, resumed=False, said=None):
    said = [] if said is None else said
    settings = {"train": {"batch": 3, "optimizer": {"lr": 0.1}}}
    opened = open_trackers(names, folder, settings=settings, resumed=resumed, say=said.append)
    return Journal(folder, tensorboard=False, trackers=opened, since_step=1 if resumed else 0)


def fill(book, folder):
    Image.fromarray(PIXELS).save(folder / "samples.png")
    book.step(1, 0.5, {"loss": 2.0, "lr backbone": 0.1})
    book.epoch(2, 1, {"AP": 0.5})
    book.picture("samples", folder / "samples.png", 2)
    book.close()


def test_weights_and_biases_gets_settings_numbers_and_pictures(tmp_path, wandb):
    fill(journal(tmp_path, ["wandb"]), tmp_path)
    begun, *rest = wandb.told
    assert begun["name"] == tmp_path.name and begun["id"] is None and begun["config"]["train"]["batch"] == 3
    assert rest == [
        (1, {"step/loss": 2.0, "step/lr backbone": 0.1}),
        (2, {"epoch/AP": 0.5}),
        (2, {"samples": ("image", (4, 6, 3))}),
        "finish",
    ]


def test_mlflow_gets_settings_numbers_and_pictures(tmp_path, mlflow):
    fill(journal(tmp_path, ["mlflow"]), tmp_path)
    assert mlflow.told == [
        {"run_id": None, "run_name": tmp_path.name},
        {"train.batch": "3", "train.optimizer.lr": "0.1"},
        (1, {"step/loss": 2.0, "step/lr backbone": 0.1}),
        (2, {"epoch/AP": 0.5}),
        ("samples/00000002.png", (4, 6, 3)),
        "end",
    ]


def test_a_resumed_run_goes_on_with_the_one_it_has_there(tmp_path, wandb, mlflow):
    journal(tmp_path, ["wandb", "mlflow"]).close()
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "abc", "mlflow": "m1"}
    journal(tmp_path, ["wandb", "mlflow"], resumed=True).close()
    assert wandb.told[-2]["id"] == "abc" and mlflow.told[-2] == {"run_id": "m1", "run_name": None}
    journal(tmp_path, ["wandb"]).close()
    assert wandb.told[-2]["id"] is None, "a run begun anew in the folder is another run"


def test_nothing_is_sent_because_a_package_is_there(tmp_path, wandb, mlflow):
    fill(journal(tmp_path, ()), tmp_path)
    assert not wandb.told and not mlflow.told


def test_a_server_that_fails_is_said_once_and_the_journal_goes_on(tmp_path, mlflow):
    said = []
    broken = threading.Event()

    def fail(values, step):
        broken.set()
        raise ConnectionError("no route\nto host")

    mlflow.log_metrics = fail
    book = journal(tmp_path, ["mlflow"], said=said)
    book.step(1, 0.5, {"loss": 2.0})
    assert broken.wait(10)
    for step in range(2, 50):
        book.step(step, step, {"loss": 1.0})
    book.close()
    assert len(said) == 1 and "mlflow failed" in said[0] and "no route to host" in said[0]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 49


def test_without_an_account_nobody_is_asked_for_one(tmp_path, wandb):
    wandb.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode="online"))
    said = []
    journal(tmp_path, ["wandb"], said=said).close()
    assert len(said) == 1 and "WANDB_MODE=offline" in said[0] and not wandb.told


def test_a_server_that_hangs_does_not_hold_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "PATIENCE", 0.05)
    monkeypatch.setattr(loggers, "WAITING", 3)
    hanging, said = threading.Event(), []
    service = SimpleNamespace(begin=lambda: (hanging.wait(20) and "x") or "x", numbers=None, picture=None, end=None)
    tracker = Tracker("mlflow", service, tmp_path, said.append)
    start = time.monotonic()
    for step in range(100):
        tracker.numbers({"loss": 1.0}, step)
    tracker.close()
    assert time.monotonic() - start < 5 and len(said) == 1 and "did not take all" in said[0]
    hanging.set()


def test_names_are_checked(monkeypatch, wandb):
    assert chosen_logs(None) is None and chosen_logs("none") == () and chosen_logs("") == ()
    assert chosen_logs("wandb, wandb") == ("wandb",)
    with pytest.raises(UsageError, match="did you mean 'wandb'"):
        chosen_logs("wandbb")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install 'mlflow-skinny>=3'"):
        chosen_logs("mlflow")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself_keeps_a_run(tmp_path, monkeypatch):
    library = pytest.importorskip("mlflow")
    library.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    library.set_experiment("made")
    fill(journal(tmp_path, ["mlflow"]), tmp_path)
    run = library.MlflowClient().get_run(json.loads((tmp_path / "trackers.json").read_text())["mlflow"])
    assert run.data.metrics["epoch/AP"] == 0.5 and run.data.params["train.batch"] == "3"
