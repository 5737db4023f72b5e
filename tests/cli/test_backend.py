"""What --backend, --int8 and an exported file go together with, and a prediction through a file from end to end."""

import json

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from detr import weights
from detr.classes import Classes
from detr.cli.backend import exported_runner
from detr.cli.predict import command as predict
from detr.cli.val import command as val
from detr.errors import UsageError
from detr.models import build_model


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = build_model("rtdetr-tiny", classes=Classes((1, 2), ("cat", "dog")))
    weights.write("tiny.safetensors", network.state_dict(), model=network.config.model_dump(mode="json"),
                  classes=network.classes)  # fmt: skip
    Image.effect_noise((90, 70), 60).convert("RGB").save("picture.png")
    return "tiny.safetensors"


def run(command, *words):
    result = CliRunner().invoke(command, words)
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "--int8 needs --backend openvino or --backend onnx"),
        (["--backend", "onnx", "--int8"], "--int8 needs --calibrate DATA"),
        (["--backend", "onnx", "--calibrate", "shapes"], "--calibrate is for --int8"),
        (["--backend", "openvino", "--compile"], "--compile is PyTorch's"),
        (["--backend", "onnx", "--half"], "leave out half"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tiny, words, message):
    with pytest.raises(UsageError, match=message):
        run(predict, "picture.png", "--weights", tiny, *words)


def test_files_are_not_run_on_a_gpu(tiny):
    with pytest.raises(UsageError, match=r"--device cuda: .*ONNX Runtime and OpenVINO run on the CPU"):
        exported_runner(tiny, model=None, backend="onnx", int8=False, calibrate=None, device="cuda")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "onnx"], "is an exported file, which says how it is run"),
        (["--layers", "2"], "--layers: .* was exported with its own"),
        (["--model", "rtdetr-tiny"], "--model: .* was exported with its own"),
    ],
)
@pytest.mark.parametrize("command", [predict, val])
def test_an_exported_file_is_run_as_it_is(tiny, tmp_path, command, words, message):
    (tmp_path / "tiny.onnx").touch()
    source = ["picture.png"] if command is predict else ["--data", "shapes"]
    with pytest.raises(UsageError, match=message):
        run(command, *source, "--weights", "tiny.onnx", *words)


def test_a_prediction_by_onnx_runtime_is_that_of_pytorch_and_so_is_that_of_its_file(tiny, tmp_path):
    found = {}
    (tmp_path / "home" / "exports").mkdir(parents=True)
    words = ["--imgsz", "64", "--conf", "0", "--save-json", "--quiet"]
    run(predict, "picture.png", "--weights", tiny, *words, "--name", "torch")
    run(predict, "picture.png", "--weights", tiny, *words, "--name", "onnx", "--backend", "onnx")
    (file,) = (tmp_path / "home" / "exports").iterdir()
    run(predict, "picture.png", "--weights", str(file), "--conf", "0", "--save-json", "--quiet", "--name", "file")
    for name in ("torch", "onnx", "file"):
        (path,) = (tmp_path / "runs" / "predict" / name).glob("*.json")
        found[name] = [row["score"] for row in json.loads(path.read_text())]
    assert len(found["torch"]) > 50
    assert found["onnx"] == pytest.approx(found["torch"], abs=1e-4)
    assert found["file"] == found["onnx"]
