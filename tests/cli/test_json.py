"""One shape of JSON for all commands: see docs/json.md."""

import importlib
import re
import shutil

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from detr.cli import VERBS

HERE = {
    "predict": "predict picture.png --weights weights.safetensors",
    "track": "track picture.png --weights weights.safetensors --fps 5",
    "explain": "explain picture.png --weights weights.safetensors",
    "val": "val --weights weights.safetensors --data set --imgsz 64 --workers 0 --device cpu",
    "val of predictions": "val --predictions found.json --data set --name again",
    "parity": "parity weights.safetensors --data set --format none",
    "benchmark": "benchmark weights.safetensors --seconds 0 --warmup 0 --imgsz 64 --data set --workers 0",
    "doctor of a set": "doctor set --no-page",
    "doctor": "doctor",
    "data check": "data check set --quick",
    "data convert": "data convert set --to yolo --out yolo",
    "models": "models",
    "weights list": "weights list",
    "weights inspect": "weights inspect rtdetr-tiny",
    "weights convert": "weights convert weights.safetensors half.safetensors --half",
    "weights download": "weights download rtdetr-tiny",
}
ELSEWHERE = {"export", "train", "tune", "demo", "serve"}  # whose JSON is looked at where they are tested


@pytest.fixture(scope="module")
def place(small_shapes, trained, tmp_path_factory):
    """A folder with a data set, a picture, weights and predictions."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(small_shapes, folder / "set")
    shutil.copy(trained(1) / "best.safetensors", folder / "weights.safetensors")
    Image.new("RGB", (64, 48), "red").save(folder / "picture.png")
    (folder / "found.json").write_text("[]")
    return folder


@pytest.mark.parametrize("words", HERE.values(), ids=HERE)
def test_a_command_tells_one_object_in_the_words_of_all(words, place, monkeypatch, as_told):
    monkeypatch.chdir(place)
    monkeypatch.setattr("detr.evaluation.plots.available", lambda: False)
    verb, *rest = words.split()
    done = CliRunner().invoke(importlib.import_module(f"detr.cli.{verb}").command, [*rest, "--json"])
    assert done.exit_code == 0, done.output
    assert as_told(done.stdout)


def test_every_command_with_json_is_looked_at():
    def commands(command, name):
        inner = getattr(command, "commands", {})
        yield from (
            [(name, command)]
            if not inner
            else (pair for each in inner.values() for pair in commands(each, f"{name} {each.name}"))
        )

    all_of_them = [
        pair for verb in VERBS for pair in commands(importlib.import_module(f"detr.cli.{verb}").command, verb)
    ]
    told = {
        name
        for name, command in all_of_them
        if any(isinstance(p, click.Option) and p.name == "as_json" for p in command.params)
    }
    assert told == {re.sub(" of .*", "", name) for name in HERE} | ELSEWHERE
