"""`detr explain` as typed: exit codes, what it says, what lies in the folder."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from detr.video import VideoWriter

LOW = ["--conf", "0", "--max-det", "2", "--imgsz", "64"]


@pytest.fixture
def detr_explain(tmp_path, detr_program):
    Image.new("RGB", (64, 48), (200, 30, 40)).save(tmp_path / "a.png")
    return partial(detr_program, "explain")


def test_an_image_leaves_pictures_numbers_and_a_page(tmp_path, detr_explain):
    code, out, err = detr_explain("a.png", *LOW)
    folder = tmp_path / "runs" / "explain" / "explain"
    assert (code, err) == (0, "")
    assert "a.png: 2 detections" in out
    assert out.rstrip().endswith("1 picture, 2 detections explained; look at runs/explain/explain/index.html")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "a.json", "a.png", "index.html"]
    assert len(list((folder / "a").iterdir())) == 2
    numbers = json.loads((folder / "a.json").read_text())
    assert (numbers["width"], numbers["height"], len(numbers["detections"])) == (64, 48, 2)
    first = numbers["detections"][0]
    assert np.shape(first["points"]["xy"]) == (3, 8, 12, 2) and len(first["layers"]) == 3


def test_maps_are_put_to_the_test(tmp_path, detr_explain):
    code, out, _ = detr_explain("a.png", *LOW, "--faithful", "--layer", "3")
    folder = tmp_path / "runs" / "explain" / "explain"
    assert code == 0 and "looked at - elsewhere: " in out
    numbers = json.loads((folder / "faithfulness.json").read_text())
    assert numbers["detections"] == 2 and len(numbers["trials"]) == 2
    assert "looked at - elsewhere: " in (folder / "index.html").read_text()


def test_a_place_is_asked_and_shown_on_the_page(tmp_path, detr_explain):
    code, out, err = detr_explain("a.png", *LOW, "--at", "0,0,0.5,0.5", "--json")
    folder = tmp_path / "runs" / "explain" / "explain"
    [asked] = json.loads(out)["asked"]
    assert code == 0 and f"a.png: {asked['said']}" in err and "1 picture asked; look at" in err
    assert asked["source"] == "a.png" and asked["box"] == {"x1": 0, "y1": 0, "x2": 32, "y2": 24}
    numbers = json.loads((folder / "a.json").read_text())
    assert numbers["asked"]["said"] == asked["said"] and len(numbers["detections"]) == 3
    assert asked["said"] in (folder / "index.html").read_text()


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [("5,5,5", 2, "expected x1,y1,x2,y2"), ("9,9,5,5", 2, "expected"), ("0,0,65,9", 1, "64 x 48")],
)
def test_a_place_that_is_none_is_refused(tmp_path, detr_explain, place, code, said):
    got, _, err = detr_explain("a.png", *LOW, "--at", place)
    assert got == code and said in err and not list((tmp_path / "runs").glob("explain/*"))


def test_a_video_is_explained_every_so_manieth_frame(tmp_path, detr_explain):
    with VideoWriter(tmp_path / "walk.mp4", rate=10) as writer:
        for index in range(5):
            writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    code, out, _ = detr_explain("walk.mp4", *LOW, "--every", "2", "--name", "mine", "--json")
    folder = tmp_path / "runs" / "explain" / "mine"
    assert code == 0 and json.loads(out)["frames"] == 3
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "walk.jsonl", "walk.mp4"]
    lines = [json.loads(line) for line in (folder / "walk.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 2, 4]


def test_sources_that_cannot_be_read_are_named_and_the_others_go_on(tmp_path, detr_explain):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    code, out, err = detr_explain("bad.png", "a.png", *LOW)
    assert code == 1 and "1 of 2 sources failed" in err and "failed: bad.png" in err
    assert "1 picture, 2 detections explained" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a.png", "--layer", "4"], 2, "--layer 4: this model's decoder has 3 layers"),
        (["a.png", "--head", "9"], 2, "--head 9: this model's decoder has 8 heads"),
        (["a.png", "--conf", "2"], 2, "--conf 2: expected a number from 0 to 1"),
        (["a.png", "--classes", "cicle"], 2, "did you mean 'circle'?"),
        (["b.png"], 2, "b.png: no such file or folder; did you mean 'a.png'?"),
        (["a.png", "--weights", "model.onnx"], 2, "explain the weights that it was exported from"),
        (["a.png", "--device", "tpu"], 2, "device 'tpu'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, detr_explain, words, code, message):
    (tmp_path / "model.onnx").write_bytes(b"")
    left, out, err = detr_explain(*words)
    assert (left, out) == (code, "") and message in err and len(err.splitlines()) == 1
    assert not any((tmp_path / "runs").rglob("*.*"))
    assert not any((tmp_path / "runs").glob("explain/*"))
