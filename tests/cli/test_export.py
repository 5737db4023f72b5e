"""`detr export` from end to end, and what it refuses."""

import pytest
from click.testing import CliRunner

from detr import export
from detr.cli.export import command
from detr.engine.detector import Detector
from detr.errors import InputError, UsageError
from detr.export import open_runner

pytest.importorskip("onnx")


def run(*words):
    result = CliRunner().invoke(command, words)
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", ","], "--format ',': expected onnx"),
        (["--format", "onx"], "did you mean 'onnx'"),
        (["--format", "torchscript"], "take its successor, torch-export"),
        (["--format", "onnx,tensorrt"], "TensorRT needs an NVIDIA GPU, and PyTorch sees none here"),
        (["--format", "tensorrt", "--int8", "--calibrate", "shapes"], "tensorrt has no 8 bits here"),
        (["--format", "aotinductor"], "aoti_compile_and_package"),
        (["--format", "torch-export", "--int8", "--calibrate", "shapes"], "torch-export has no 8 bits here"),
        (["--int8"], "--int8 needs --calibrate DATA"),
        (["--calibrate", "shapes"], "--calibrate is for --int8"),
        (["--dynamic", "sizes"], "did you mean 'size'"),
        (["--dynamic", "size", "--with-preprocessing"], "a file that resizes pictures itself takes any"),
        (["--out", "model.xml"], "a file of onnx ends in .onnx"),
        (["--imgsz", "100"], "expected a multiple of 32"),
    ],
)
def test_what_makes_no_sense_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        run("rtdetr-tiny", *words)


def test_where_it_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(export, "write", None)
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        run("rtdetr-tiny", "-o", str(tmp_path / "file" / "x.onnx"))


def test_a_file_gets_its_name_when_it_has_been_verified(tmp_path, monkeypatch, as_told):
    monkeypatch.setattr("detr.export.proven._DRAWN", 2)
    result = run("rtdetr-tiny", "--format", "torch-export", "--imgsz", "128", "-o", str(tmp_path / "out"), "--json")
    (report,) = as_told(result.stdout)["files"]
    path = tmp_path / "out" / "rtdetr-tiny.pt2"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert (report["file"], report["verified"]) == (str(path), True)
    assert open_runner(path).about.size == (128, 128)


def test_a_file_that_finds_something_else_keeps_another_name(tmp_path, monkeypatch):
    write = export.write

    def written(format, network, path, **options):
        network.decoder.score_heads[-1].bias.data.add_(0.5)
        write(format, network, path, **options)
        network.decoder.score_heads[-1].bias.data.sub_(0.5)

    monkeypatch.setattr(export, "write", written)
    monkeypatch.setattr("detr.export.proven._DRAWN", 2)
    (tmp_path / "tiny.pt2").write_text("the old one")
    with pytest.raises(InputError, match=r"the first stage to diverge is decoder .*; it keeps that name"):
        run("rtdetr-tiny", "--format", "torch-export", "--imgsz", "128", "-o", str(tmp_path / "tiny.pt2"))
    assert (tmp_path / "tiny.pt2").read_text() == "the old one"
    assert (tmp_path / "tiny.unverified.pt2").is_file()


@pytest.mark.parametrize(
    ("weights", "out", "message"),
    [
        ("rtdetr-tiny", "folder.onnx", r"folder.onnx is a folder; expected a file"),
        ("exported.onnx", "model.onnx", r"exported.onnx is an exported file; give the weights that it was made of"),
    ],
)
def test_what_is_in_the_way_is_said_before_any_work(tmp_path, monkeypatch, weights, out, message):
    monkeypatch.setattr(export, "write", None)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match=message):
        run(weights, "-o", str(tmp_path / out))


def test_a_detector_exports_what_it_is_as_the_command_does(tmp_path, monkeypatch):
    written = {}

    def write(format, network, path, **how):
        written.update(how, format=format, network=network)
        path.write_bytes(b"program")

    monkeypatch.setattr(export, "write", write)
    model, said = Detector("rtdetr-tiny", layers=1, device="cpu"), []
    path = model.export(
        "torch-export", out=tmp_path, imgsz=128, with_postprocessing=True, verify=False, say=said.append
    )
    assert path == tmp_path / "rtdetr-tiny.pt2" and said == [f"{path}: 0.0 MB, not verified"]
    assert (written["network"].config.input.height, written["network"].decoder.eval_layers) == (128, 1)
    assert written["form"] == export.Form(max_det=300) and model.config.input.height == 320
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        model.export("onx")
    with pytest.raises(UsageError, match="option 'dynamics': expected format"):
        model.export(dynamics=True)
    with pytest.raises(UsageError, match="int8 and calibrate go together"):
        model.export("onnx", int8=False, calibrate="shapes")
