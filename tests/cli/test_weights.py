import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from detr import releases, weights
from detr.convert import to_theirs
from detr.models import build_model, load_model
from detr.models.presets import preset
from detr.models.saving import official_state, save_model
from detr.releases import RELEASES, Release


class Runs:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DETR_OFFLINE", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "official.pth"
    save_model(build_model("rtdetr-tiny"), path, "official")
    return path


@pytest.fixture
def detr_weights(detr_program):
    return partial(detr_program, "weights")


def test_list_shows_every_release(detr_weights):
    code, out, _ = detr_weights("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(RELEASES)
    assert "46.4" in out


def test_list_shows_backbones_without_a_model_and_what_they_learned_from(detr_weights):
    lines = detr_weights("list")[1].splitlines()
    line = next(line for line in lines if line.startswith("resnet50-vd"))
    assert line.split() == ["resnet50-vd", "-", "-", "-", "ImageNet", "download"]
    rows = {row["name"]: row for row in json.loads(detr_weights("list", "--json")[1])["releases"]}
    assert rows["resnet50-vd"]["model"] is None


def test_list_answers_without_torch():
    program = (
        "import sys; from click.testing import CliRunner; from detr.cli.weights import command; "
        "assert CliRunner().invoke(command, ['list']).exit_code == 0; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_list_as_json_carries_urls(detr_weights):
    rows = json.loads(detr_weights("list", "--json")[1])["releases"]
    assert {row["name"]: row["url"] for row in rows} == {name: release.url for name, release in RELEASES.items()}


def test_download_prints_where_the_file_is(detr_weights, home, monkeypatch):
    monkeypatch.setitem(RELEASES, "rtdetr-test", Release("rtdetr-r18", "https://weights.example/a.pth", 1.0, 2.0))
    monkeypatch.setattr(releases, "fetch", lambda url, path, **_: releases.write_text(path, "weights"))
    code, out, err = detr_weights("download", "rtdetr-test")
    assert (code, out.strip()) == (0, str(home / "weights" / "a.pth"))
    assert "https://weights.example/a.pth" in err and "recorded" in err
    assert detr_weights("download", "rtdetr-test")[2] == ""
    assert json.loads(detr_weights("download", "rtdetr-test", "--json")[1])["files"][0]["name"] == "rtdetr-test"


def test_download_offline_says_where_to_put_the_file(detr_weights, home, monkeypatch):
    monkeypatch.setenv("DETR_OFFLINE", "1")
    code, out, err = detr_weights("download", "rtdetr-r18")
    assert (code, out) == (1, "")
    assert RELEASES["rtdetr-r18"].url in err and str(home) in err
    assert len(err.splitlines()) == 1


def test_download_of_an_unknown_name_is_a_usage_error(detr_weights):
    code, _, err = detr_weights("download", "rtdetr-r81")
    assert code == 2
    assert "did you mean 'rtdetr-r18'" in err


def test_inspect_says_what_a_file_is(detr_weights, official):
    code, out, _ = detr_weights("inspect", official)
    assert code == 0
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    values = {name: text.strip() for name, text in lines.items()}
    network = build_model("rtdetr-tiny")
    assert values["format"] == "torch, names of rtdetrv2-official"
    assert values["model"] == "rtdetr-tiny"
    assert values["parameters"] == f"{sum(parameter.numel() for parameter in network.parameters()):,}"
    assert values["classes"].startswith("80: person, bicycle")


def test_inspect_as_json_of_a_file_of_ours(detr_weights, tmp_path):
    save_model(build_model("rtdetr-tiny"), tmp_path / "tiny.safetensors", metadata={"epoch": 3})
    report = json.loads(detr_weights("inspect", "--json", tmp_path / "tiny.safetensors")[1])
    assert report["model"] == "rtdetr-tiny"
    assert report["metadata"] == {"epoch": 3}
    assert report["checked"] == "every tensor against its SHA-256"
    assert report["sha256"] == releases.file_sha256(tmp_path / "tiny.safetensors")


def test_inspect_reports_a_model_that_is_not_ours(detr_weights, tmp_path):
    torch.save({"layer1.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    code, out, _ = detr_weights("inspect", tmp_path / "resnet.pth")
    assert code == 0
    assert "none of ours" in out and "ResNet" in out


def test_inspect_says_that_a_file_is_only_a_backbone(detr_weights, tmp_path):
    state = build_model("rtdetr-tiny").backbone.state_dict(prefix="backbone.")
    torch.save(to_theirs(state, "resnet-vd-official"), tmp_path / "backbone.pth")
    code, out, _ = detr_weights("inspect", tmp_path / "backbone.pth")
    assert code == 0
    assert "a backbone only" in out and "none of ours" not in out


@pytest.mark.parametrize("verb", ["inspect", "convert"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_ends_with_one_line_and_does_nothing(verb, legacy, detr_weights, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save({"model": Runs(str(mark))}, path, _use_new_zipfile_serialization=not legacy)
    code, out, err = detr_weights(verb, path, *([tmp_path / "out"] if verb == "convert" else []))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert not mark.exists() and not (tmp_path / "out").exists()


def test_convert_writes_ours(detr_weights, official, tmp_path):
    code, out, _ = detr_weights("convert", official, tmp_path / "ours.safetensors")
    assert code == 0 and str(tmp_path / "ours.safetensors") in out
    checkpoint = weights.read(tmp_path / "ours.safetensors")
    assert checkpoint.model == preset("rtdetr-tiny").model_dump(mode="json")
    assert checkpoint.metadata["converted_from"] == "official.pth"


def test_convert_to_half_stores_16_bits_that_load_as_32(detr_weights, official, tmp_path):
    half = tmp_path / "half.safetensors"
    code, out, _ = detr_weights("convert", official, half, "--half", "--json")
    assert code == 0 and json.loads(out)["file"] == str(half)
    assert half.stat().st_size < 0.6 * official.stat().st_size
    loaded, exact = load_model(str(half)), load_model(str(official))
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, exact.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)


def test_convert_writes_the_other_forms(detr_weights, tmp_path):
    config = preset("rtdetr-tiny")
    encoder = config.encoder.model_copy(update={"depth": 1.0})  # transformers has no other
    network = build_model(config.model_copy(update={"encoder": encoder}))
    save_model(network, tmp_path / "ours.safetensors")
    assert detr_weights("convert", tmp_path / "ours.safetensors", tmp_path / "folder", "--to", "hf")[0] == 0
    files = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert files == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert detr_weights("convert", tmp_path / "folder", tmp_path / "back.pth", "--to", "official")[0] == 0
    state, expected = weights.read(tmp_path / "back.pth").state, official_state(network)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_what_transformers_does_otherwise_is_said(detr_weights, tmp_path):
    save_model(build_model("deimv2-atto"), tmp_path / "ours.safetensors")
    code, _, err = detr_weights("convert", tmp_path / "ours.safetensors", tmp_path / "folder", "--to", "hf")
    assert code == 0 and err.startswith("note: transformers' DEIMv2 embeds") and len(err.splitlines()) == 1


@pytest.mark.parametrize("file", ["no/such.pth", "rtdetr-r81"])
def test_what_is_not_there_is_a_usage_error(file, detr_weights, tmp_path):
    code, _, err = detr_weights("convert", file, tmp_path / "out")
    assert code == 2 and len(err.splitlines()) == 1


def test_a_place_that_cannot_be_written_is_an_error(detr_weights, tmp_path):
    save_model(build_model("rtdetr-tiny"), tmp_path / "tiny.safetensors")
    Path(tmp_path / "file").write_text("in the way")
    code, _, err = detr_weights("convert", tmp_path / "tiny.safetensors", tmp_path / "file" / "out.safetensors")
    assert code == 1 and "cannot write" in err and len(err.splitlines()) == 1
