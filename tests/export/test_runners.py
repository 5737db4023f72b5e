import copy
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnxscript.rewriter.rules.common import slice_split_rule

from detr.cli.weights import inspect
from detr.data.shapes import draw_shapes
from detr.engine.detector import Detector
from detr.errors import InputError, UsageError
from detr.export import Form, OpenVINORunner, form_for, open_runner, opening, runner_for, verify, write
from detr.export.about import about_from, about_of
from detr.export.divergence import trace
from detr.export.formats import require_format
from detr.models import build_model, load_model
from detr.models.inspection import digest_of
from detr.runtime.runner import TorchRunner

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


def pictures(network, count):
    """images and padding: where the network keeps the aspect, of different sizes on the square that files take."""
    draw = torch.Generator().manual_seed(1)
    input = network.config.input
    if not input.keeps_aspect:
        return torch.rand(count, 3, input.height, input.width, generator=draw), None
    images, padding = torch.zeros(count, 3, 96, 96), torch.ones(count, 96, 96, dtype=torch.bool)
    for index, (height, width) in enumerate([(64, 96), (96, 64), (64, 64)][:count]):
        images[index, :, :height, :width] = torch.rand(3, height, width, generator=draw)
        padding[index, :height, :width] = False
    return images, padding


def assert_same_queries(answer, expected):
    """Queries are matched: of two that score nearly alike, either may come first."""
    for logits, boxes, ours, places in zip(answer.logits, answer.boxes, expected.logits, expected.boxes, strict=True):
        apart = torch.cdist(torch.cat((logits, boxes), 1), torch.cat((ours, places), 1), p=float("inf"))
        assert apart.min(1).values.max() < 1e-4
        assert apart.min(0).values.max() < 1e-4


def test_a_file_says_what_it_is_and_answers_as_pytorch_does(each):
    network, path = each
    assert b"/detr/" not in path.read_bytes()  # nothing of the machine it was made on
    runners = [open_runner(path)] + ([OpenVINORunner(path)] if HAS_OPENVINO else [])
    assert runners[0].name == "onnx float32"
    ours = TorchRunner(network)
    for runner in runners:
        assert (runner.config, runner.classes, runner.scoring) == (network.config, network.classes, network.scoring)
        for count in (2, 1, 3):
            images, padding = pictures(network, count)
            expected = ours(images, padding).layers[-1]
            assert_same_queries(runner(images, padding).layers[-1], expected)


def test_every_family_is_verified_by_onnx_runtime_and_openvino(each):
    network, path = each
    draw = np.random.default_rng(0)
    seen = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in [(60, 80), (90, 50)]]
    for runner in [open_runner(path)] + ([OpenVINORunner(path)] if HAS_OPENVINO else []):
        verdict = verify(network, runner, seen)
        assert verdict.ok, verdict.text
        assert verdict.agreement.counted >= 18
        stages = trace(network, runner, seen[0], verdict.tolerance).stages
        assert max(stage.error for stage in stages) < 1e-4


def test_the_exporter_is_left_with_the_rules_it_had(exported):
    exported("rtdetr")
    assert "match" not in vars(slice_split_rule)


def test_a_file_says_which_weights_it_was_made_of(exported):
    network, path = exported("rtdetr")
    report = CliRunner().invoke(inspect, [str(path), "--json"], catch_exceptions=False)
    assert json.loads(report.stdout)["numbers"] == digest_of(network)
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    assert digest_of(other) != digest_of(network)


def test_half_of_the_numbers_bits_find_nearly_the_same(tmp_path):
    network = load_model("rtdetr-tiny")
    write("onnx", network, tmp_path / "half.onnx", form=Form(half=True))
    runner = open_runner(tmp_path / "half.onnx")
    assert runner.name == "onnx float16"
    assert (tmp_path / "half.onnx").stat().st_size < 2.5 * sum(each.numel() for each in network.parameters())
    seen = [draw_shapes(0, "val", index, size=200)[0] for index in range(2)]
    verdict = verify(network, runner, seen)
    assert verdict.ok, verdict.text
    assert 1e-5 < verdict.agreement.worst_score < 0.02


def test_a_file_of_any_size_sees_images_as_pytorch_does_without_padding(exported, tmp_path):
    network, _ = exported("detr")
    write("onnx", network, tmp_path / "any.onnx", form=form_for(network))
    runner = open_runner(tmp_path / "any.onnx")
    assert runner.about.form.open_size
    ours = TorchRunner(network)
    for size in [(64, 96), (96, 65), (33, 70)]:
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        expected = ours(images).layers[-1]
        torch.testing.assert_close(runner(images).layers[-1].logits, expected.logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(runner(images).layers[-1].boxes, expected.boxes, rtol=0, atol=1e-4)


def test_an_answer_is_not_overwritten_by_the_next(exported):
    runner = open_runner(exported("rtdetr")[1])
    first = runner(torch.zeros(1, 3, 96, 64)).layers[-1].logits
    before = first.clone()
    runner(torch.ones(1, 3, 96, 64))
    assert torch.equal(first, before)


def test_images_of_another_size_are_refused(exported):
    with pytest.raises(UsageError, match=r"64 x 64: this file takes 96 x 64"):
        open_runner(exported("rtdetr")[1])(torch.zeros(1, 3, 64, 64))
    with pytest.raises(UsageError, match=r"96 x 128: this file takes up to 96 x 96"):
        open_runner(exported("detr")[1])(torch.zeros(1, 3, 96, 128))


def test_a_detector_runs_a_runner(exported):
    network, path = exported("rtdetr")
    picture = torch.randint(0, 255, (3, 70, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = Detector(network, device="cpu")(picture, conf=0.0)[0]
    theirs = Detector(open_runner(path))(picture, conf=0.0)[0]
    torch.testing.assert_close(theirs.boxes.conf, ours.boxes.conf, rtol=0, atol=1e-4)


def test_a_made_file_is_kept_for_the_same_weights(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(opening, "write", lambda backend, network, path, **_: made.append(path) or path.touch())
    monkeypatch.setattr(opening, "open_runner", lambda path, **_: path)
    network = build_model("rtdetr-tiny").eval()
    (tmp_path / "home" / "exports").mkdir(parents=True)
    first = runner_for("onnx", network)
    assert runner_for("onnx", network) == first
    assert made == [first]
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert runner_for("onnx", network) != first
    assert len(made) == 2


def test_what_is_no_file_of_ours_is_refused(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"broken.onnx can't be run by ONNX Runtime"):
        open_runner(path)
    with pytest.raises(UsageError, match="no such exported file"):
        open_runner(tmp_path / "none.onnx")
    (tmp_path / "alone.xml").write_text("<net/>")
    with pytest.raises(InputError, match=r"expected alone.bin beside it"):
        open_runner(tmp_path / "alone.xml")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"format": "1"}, "is damaged"),
        ({"format": 99}, "it was written by detr .*, newer than this one"),
        ({"size": "ab"}, "is damaged"),
        ({"size": [-1, 64]}, "is damaged"),
        ({"size": [64]}, "is damaged"),
        ({"slots": ["a"]}, "is damaged"),
        ({"form": {"max_det": -1}}, "max_det -1: expected at least 1"),
        ({"form": 3}, "is damaged"),
        ({"classes": 3}, "expected a list of classes"),
        ({"model": {"arch": "nope"}}, "arch is 'nope'"),
    ],
    ids=str,
)
def test_what_a_file_says_of_itself_is_looked_at(exported, said, message):
    tree = json.loads(about_of(exported("rtdetr")[0]).to_json()) | said
    with pytest.raises(InputError, match=f"model.onnx.*{message}"):
        about_from(json.dumps(tree), Path("model.onnx"))


@pytest.mark.parametrize(
    ("name", "int8", "what"),
    [("onnx", False, "the format onnx"), ("openvino", False, "the format openvino"), ("onnx", True, "--int8 for onnx")],
)
def test_what_needs_a_package_that_lacks_is_named(monkeypatch, name, int8, what):
    lacking = "nncf" if int8 else name
    monkeypatch.setattr("detr.extras.is_installed", lambda package: package != lacking)
    with pytest.raises(UsageError, match=rf"^{what} needs {lacking}, which is not installed; type: pip install"):
        require_format(name, int8=int8)


def test_an_unknown_backend_gets_the_nearest(exported, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        write("openvine", exported("rtdetr")[0], tmp_path / "x.xml")
    with pytest.raises(UsageError, match="leave out half"):
        runner_for("onnx", exported("rtdetr")[0], half=True)


def test_a_format_that_others_call_otherwise_is_told_ours():
    with pytest.raises(UsageError, match="'engine'; did you mean 'tensorrt'"):
        require_format("engine")
