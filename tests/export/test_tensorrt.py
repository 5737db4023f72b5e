"""Engines of TensorRT, held to what the real one offers where there is none; and by the real one where there is."""

import shutil
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detr.cli.backend import exported_runner
from detr.errors import InputError, UsageError
from detr.export import Building, Form, TensorRTRunner, open_runner, require_format, to_tensorrt, verify, write
from detr.export.about import about_of
from detr.export.engine_file import read_heading
from detr.export.form import PLAIN
from detr.export.packages import package
from detr.export.to_tensorrt import shapes_for
from detr.models import build_model, load_model

pytest.importorskip("onnxruntime")
from tests.export.conftest import small_network
from tests.export.fake_tensorrt import API, fake_tensorrt

VERSIONS = sorted(API)
WHOLE = Form(preprocessing=True, max_det=50)


@pytest.fixture(scope="module")
def files(exported, whole):
    """(network, its ONNX file), made before PyTorch believes that there is a GPU."""
    return {"whole": (load_model("rtdetr-tiny"), whole), **{arch: exported(arch) for arch in ("rtdetr", "detr")}}


@pytest.fixture
def gpu(files, monkeypatch):
    """As if PyTorch saw one; its memory is the CPU's."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    seen = {
        "is_available": lambda: True,
        "get_device_name": lambda: "NVIDIA L4",
        "get_device_capability": lambda: (8, 9),
        "Stream": lambda: SimpleNamespace(cuda_stream=7, synchronize=lambda: None),
        "stream": lambda stream: nullcontext(),
    }
    for name, value in seen.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("detr.export.tensorrt_runner._gpu", lambda: torch.device("cpu"))


@pytest.fixture
def tensorrt(gpu, monkeypatch):
    def installed(version=VERSIONS[-1]):
        monkeypatch.setattr("detr.export.packages.is_installed", lambda name: True)
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version))

    installed()
    return installed


@pytest.fixture
def engine(tensorrt, files, tmp_path, monkeypatch):
    """(network, its engine) of one of the files."""

    def of(name, form=PLAIN, **building):
        network, onnx = files[name]
        monkeypatch.setattr(to_tensorrt, "write_onnx", lambda network, path, about: shutil.copy(onnx, path))
        write("tensorrt", network, tmp_path / "model.engine", form=form, building=Building(**building))
        return network, tmp_path / "model.engine"

    return of


def pictures():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in [(60, 80), (90, 50)]]


@pytest.mark.parametrize(("arch", "version"), [*(("rtdetr", version) for version in VERSIONS), ("detr", VERSIONS[-1])])
def test_an_engine_finds_what_its_network_finds(tensorrt, engine, arch, version):
    tensorrt(version)
    network, path = engine(arch)
    runner = open_runner(path)
    assert runner.name == "tensorrt float32"
    assert (runner.config, runner.classes, runner.scoring) == (network.config, network.classes, network.scoring)
    verdict = verify(network, runner, pictures())
    assert verdict.ok, verdict.text


def test_an_engine_that_finds_something_else_says_that_it_shows_no_stages(engine):
    _, path = engine("rtdetr")
    verdict = verify(small_network("rtdetr", seed=1), open_runner(path), pictures())
    assert not verdict.ok
    assert "this kind of file doesn't show; is the same model right as onnx?" in verdict.text


def test_more_images_than_it_takes_go_through_it_in_parts(engine):
    runner = open_runner(engine("rtdetr", max_batch=2)[1])
    images = torch.rand(5, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    together = runner(images).layers[-1]
    assert len(together.logits) == 5
    torch.testing.assert_close(together.logits[4:], runner(images[4:]).layers[-1].logits, rtol=0, atol=1e-5)


def test_pictures_themselves_go_in_and_detections_come_out(engine):
    network, path = engine("whole", form=WHOLE)
    runner = open_runner(path)
    verdict = verify(network, runner, pictures())
    assert verdict.ok, verdict.text
    with pytest.raises(UsageError, match=r"images of \[1, 20, 5000, 3\]: .* takes \[1, 32, 32, 3\] to \[8, 3840, 3840"):
        runner.answers({"images": np.zeros((1, 20, 5000, 3), np.uint8)})


def test_the_sizes_that_an_engine_takes_are_stated():
    fixed = about_of(build_model("rtdetr-r18"), Form(open_batch=False))
    assert shapes_for(fixed, 8) == {"images": ((1, 3, 640, 640),) * 3}
    batches = about_of(build_model("rtdetr-r18"))
    assert shapes_for(batches, 4) == {"images": ((1, 3, 640, 640), (1, 3, 640, 640), (4, 3, 640, 640))}
    sizes = about_of(build_model("rtdetr-r18"), Form(open_batch=False, open_size=True))
    assert shapes_for(sizes, 8) == {"images": ((1, 3, 32, 32), (1, 3, 640, 640), (1, 3, 1280, 1280))}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("get_device_name", lambda: "NVIDIA H200", "was built for .* on NVIDIA L4 .*; here is .* on NVIDIA H200"),
        ("get_device_capability", lambda: (9, 0), "8.9.; here is .* 9.0.: export it again here"),
        ("is_available", lambda: False, "TensorRT needs an NVIDIA GPU, and PyTorch sees none here"),
    ],
)
def test_an_engine_of_another_machine_is_refused(engine, monkeypatch, name, value, message):
    _, path = engine("rtdetr")
    monkeypatch.setattr(torch.cuda, name, value)
    with pytest.raises(InputError, match=message):
        open_runner(path)


def test_an_engine_of_another_version_is_refused(engine, tensorrt):
    _, path = engine("rtdetr")
    tensorrt(VERSIONS[0])
    with pytest.raises(InputError, match=r"was built for TensorRT 11.* on NVIDIA L4 .*; here is TensorRT 10"):
        open_runner(path)


def test_what_is_not_a_whole_engine_of_ours_is_refused_before_tensorrt_sees_it(engine):
    _, path = engine("rtdetr")
    whole = path.read_bytes()
    length = read_heading(path).length
    for content, message in [
        (b"", "doesn't say what it is; expected an engine that `detr export` wrote"),
        (b"ftrt" + b"\0" * 40, "doesn't say what it is"),
        (whole[: length - 5], "doesn't say what it is"),
        (whole[:8] + b"\xff" * 8 + whole[16:], "doesn't say what it is"),
        (whole[:20] + b"}" + whole[21:], "what it says about itself is damaged"),
        (whole[:-5], "is damaged: the engine in it isn't the one that was written"),
        (whole[:-5] + b"x" + whole[-4:], "is damaged: the engine in it"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_runner(path)


def test_what_tensorrt_says_against_a_network_is_passed_on(tensorrt, files, monkeypatch, tmp_path):
    def renamed_modes(network, path, about):
        onnx = package("onnx")
        model = onnx.load(files["rtdetr"][1])
        for node in model.graph.node:
            for each in node.attribute:
                each.s = b"linear" if node.op_type == "GridSample" and each.name == "mode" else each.s
        onnx.save(model, path)

    monkeypatch.setattr(to_tensorrt, "write_onnx", renamed_modes)
    with pytest.raises(InputError, match=r"TensorRT 11.* can't read the network: GridSample of mode b'linear'"):
        write("tensorrt", files["rtdetr"][0], tmp_path / "model.engine")
    assert not list(tmp_path.glob("*.engine"))


def test_without_a_gpu_or_without_tensorrt_one_line_says_so(gpu, monkeypatch):
    monkeypatch.setattr("detr.export.packages.is_installed", lambda name: False)
    with pytest.raises(UsageError, match="needs tensorrt, which is not installed; type: pip install tensorrt-cu12"):
        require_format("tensorrt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="TensorRT needs an NVIDIA GPU"):
        require_format("tensorrt")


def test_commands_run_an_engine_by_its_name(engine):
    _, path = engine("rtdetr")
    options = {"model": None, "backend": "torch", "int8": False, "calibrate": None}
    assert isinstance(exported_runner(str(path), device="cuda", **options), TensorRTRunner)
    with pytest.raises(UsageError, match=r"--device cpu: .* runs on a GPU, chosen by CUDA_VISIBLE_DEVICES"):
        exported_runner(str(path), device="cpu", **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("form", [Form(), Form(half=True), Form(preprocessing=True, max_det=50)], ids=str)
def test_the_real_one_finds_what_pytorch_finds(tmp_path, form):
    pytest.importorskip("tensorrt")
    from detr.data.shapes import draw_shapes

    network = load_model("rtdetr-tiny")
    write("tensorrt", network, tmp_path / "tiny.engine", form=form)
    seen = [draw_shapes(0, "val", index, size=200)[0] for index in range(4)]
    verdict = verify(network, open_runner(tmp_path / "tiny.engine"), seen)
    assert verdict.ok, verdict.text
