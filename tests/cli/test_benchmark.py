"""`detr benchmark` from the outside: what it prints, writes and refuses. How long something took is not looked at."""

import json
import signal
import sys

import pytest

import detr.cli
from detr.data.shapes import make_shapes
from detr.engine import plots


@pytest.fixture
def detr_benchmark(monkeypatch, capsys, tmp_path):
    """Runs `detr benchmark` with these words in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detr.engine.benchmark.warning_of_load", lambda made_on: None)  # whatever else runs here
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words):
        words = (*words, "--seconds", "0", "--warmup", "0", "--device", "cpu", "--imgsz", "64", "--workers", "0")
        monkeypatch.setattr(sys, "argv", ["detr", "benchmark", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            detr.cli.main()
        captured = capsys.readouterr()
        return left.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes") / "set", images=1, val_images=3, size=64, video=False)


def test_a_model_is_timed_with_its_own_layers_and_queries(detr_benchmark, tmp_path):
    code, out, err = detr_benchmark("rtdetr-tiny")
    assert (code, err) == (0, "")
    about, head, line = out.splitlines()
    assert "threads" in about and "input 64 x 64" in about and "float32" in about and "torch" in about
    assert line.split()[:2] == ["3", "100"] and line.split()[-1] == "-"
    assert len(head.split()) == 9
    assert list(tmp_path.iterdir()) == []


def test_as_json_every_point_has_its_numbers_and_the_machine(detr_benchmark):
    code, out, _ = detr_benchmark("rtdetr-tiny", "--layers", "1,3", "--queries", "10", "--batch", "2", "--json")
    report = json.loads(out)["models"][0]
    assert code == 0
    assert [(point["layers"], point["queries"]) for point in report["points"]] == [(1, 10), (3, 10)]
    for point in report["points"]:
        assert point["runs"] >= 10
        assert 0 < point["median_ms"] <= point["p95_ms"]
        assert point["images_per_second"] == pytest.approx(2000 / point["median_ms"], rel=1e-3)
    assert report["points"][0]["gflops"] < report["points"][1]["gflops"]
    assert report["machine"]["batch"] == 2 and report["machine"]["type"] == "float32"


def test_a_sweep_with_data_gives_ap_for_every_setting_and_keeps_it(detr_benchmark, shapes, tmp_path):
    code, out, _ = detr_benchmark("rtdetr-tiny", "--sweep", "layers,queries", "--layers", "1,3", "--data", shapes)
    assert code == 0
    folder = tmp_path / "runs" / "benchmark" / "benchmark"
    points = json.loads((folder / "benchmark.json").read_text())["models"][0]["points"]
    assert [(point["layers"], point["queries"]) for point in points] == [
        (layers, queries) for layers in (1, 3) for queries in (50, 100)
    ]
    assert all(0 <= point["ap"] <= 100 for point in points)
    assert len(out.splitlines()) == 2 + len(points)
    assert (folder / "benchmark.png").is_file() == plots.available()


def test_a_sweep_without_data_has_no_chart(detr_benchmark, tmp_path):
    assert detr_benchmark("rtdetr-tiny", "--sweep", "layers", "--name", "mine")[0] == 0
    assert [path.name for path in (tmp_path / "runs" / "benchmark" / "mine").iterdir()] == ["benchmark.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rtdetr-tinny"], "did you mean 'rtdetr-tiny'"),
        (["rtdetr-tiny", "--layers", "0"], "--layers 0: expected whole numbers from 1"),
        (["rtdetr-tiny", "--layers", "4"], "4 decoder layers: expected 1 to 3"),
        (["rtdetr-tiny", "--queries", "10,many"], "--queries 10,many"),
        (["rtdetr-tiny", "--sweep", "layer"], "did you mean 'layers'"),
        (["rtdetr-tiny", "--sweep", "colour"], "--sweep colour; expected layers"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(words, said, detr_benchmark, tmp_path):
    code, _, err = detr_benchmark(*words)
    assert code == 2
    assert said in err and len(err.splitlines()) == 1
    assert not list(tmp_path.glob("runs/benchmark/*"))
