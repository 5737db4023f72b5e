"""`detr benchmark` from the outside: what it prints, writes and refuses. How long something took is not looked at."""

import json

import pytest

from detr.data.shapes import make_shapes
from detr.evaluation import plots
from detr.export import of_input, write
from detr.models import load_model

FEW = ("--layers", "1", "--queries", "10")


@pytest.fixture
def detr_benchmark(monkeypatch, detr_program):
    monkeypatch.setattr("detr.engine.benchmark.warning_of_load", lambda made_on: None)  # whatever else runs here

    def run(*words):
        few = ("--seconds", "0", "--warmup", "0", "--device", "cpu", "--workers", "0")
        return detr_program("benchmark", "--imgsz", "64", *words, *few)

    return run


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes") / "set", images=1, val_images=3, size=64, video=False)


def rows_of(text):
    """Of a Markdown table, by the names of its columns."""
    head, _, *lines = [
        [word.strip() for word in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_a_model_is_timed_with_its_own_layers_and_queries(detr_benchmark, tmp_path):
    code, out, err = detr_benchmark("rtdetr-tiny")
    assert (code, err) == (0, "")
    assert "threads" in out.splitlines()[0] and "torch" in out.splitlines()[0]
    (row,) = rows_of(out)
    expected = {"model": "rtdetr-tiny", "runner": "torch float32", "batch": "1", "input": "64x64"}
    assert {name: row[name] for name in expected} == expected
    assert (row["layers"], row["queries"], row["AP"]) == ("3", "100", "-")
    assert list(tmp_path.iterdir()) == []


def test_as_json_every_point_has_its_numbers_and_the_machine(detr_benchmark):
    code, out, _ = detr_benchmark("rtdetr-tiny", "--layers", "1,3", "--queries", "10", "--batch", "2", "--json")
    report = json.loads(out)
    assert code == 0
    assert [(point["layers"], point["queries"]) for point in report["points"]] == [(1, 10), (3, 10)]
    for point in report["points"]:
        assert point["runs"] >= 10
        assert 0 < point["median_ms"] <= point["p95_ms"]
        assert point["images_per_second"] == pytest.approx(2000 / point["median_ms"], rel=1e-3)
        assert point["batch"] == 2
    assert report["points"][0]["gflops"] < report["points"][1]["gflops"]


def test_batches_sizes_and_types_are_compared_and_kept(detr_benchmark, tmp_path):
    code, out, _ = detr_benchmark("rtdetr-tiny", "--batch", "1,2", "--imgsz", "64,96", "--half", *FEW)
    assert code == 0
    seen = [(row["input"], row["runner"], row["batch"]) for row in rows_of(out)]
    assert seen == [
        (size, runner, batch)
        for size in ("64x64", "96x96")
        for runner in ("torch float32", "torch bfloat16")
        for batch in ("1", "2")
    ]
    folder = tmp_path / "runs" / "benchmark" / "benchmark"
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"benchmark.json", "benchmark.md"} | ({"benchmark.png"} if plots.available() else set())
    assert rows_of((folder / "benchmark.md").read_text()) == rows_of(out)


def test_a_sweep_with_data_gives_ap_for_every_setting_and_keeps_it(detr_benchmark, shapes, tmp_path):
    code, out, _ = detr_benchmark("rtdetr-tiny", "--sweep", "layers,queries", "--layers", "1,3", "--data", shapes)
    assert code == 0
    folder = tmp_path / "runs" / "benchmark" / "benchmark"
    points = json.loads((folder / "benchmark.json").read_text())["points"]
    assert [(point["layers"], point["queries"]) for point in points] == [
        (layers, queries) for layers in (1, 3) for queries in (50, 100)
    ]
    assert all(0 <= point["AP"] <= 1 for point in points)
    assert len(rows_of(out)) == len(points)
    assert (folder / "benchmark.png").is_file() == plots.available()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rtdetr-tinny"], "did you mean 'rtdetr-tiny'"),
        (["rtdetr-tiny", "--backend", "onxx"], "--backend onxx; did you mean 'onnx'"),
        (["rtdetr-tiny", "--backend", "torch", "--int8", "--calibrate", "x"], "--int8 is not for --backend torch"),
        (["rtdetr-tiny", "--backend", "openvino", "--int8"], "--int8 needs --calibrate DATA"),
        (["rtdetr-tiny", "--backend", "onnx", "--half"], "--half is not for --backend onnx"),
        (["rtdetr-tiny", "--batch", "1,x"], "--batch 1,x: expected whole numbers from 1"),
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


def test_an_exported_file_is_timed_as_it_is(detr_benchmark, tmp_path, shapes):
    network = load_model("rtdetr-tiny")
    small = network.config.input.model_copy(update={"height": 64, "width": 64})
    write("torch-export", of_input(network, small), tmp_path / "tiny.pt2")
    code, out, err = detr_benchmark("tiny.pt2", "rtdetr-tiny", "--data", shapes)
    assert code == 0, err
    file, own = rows_of(out)
    assert (file["runner"], own["runner"]) == ("torch-export float32", "torch float32")
    alike = ("batch", "input", "layers", "queries", "GFLOPs", "AP")
    assert {name: file[name] for name in alike} == {name: own[name] for name in alike}
    for words, message in ((("--layers", "2"), "--layers: tiny.pt2 was exported with its own"),
                           (("--imgsz", "96"), "tiny.pt2 takes 64 x 64; export one with --dynamic size"),
                           (("--backend", "onnx"), "which says how it is run")):  # fmt: skip
        code, _, err = detr_benchmark("tiny.pt2", *words)
        assert code == 2
        assert message in err
