"""`detr track` and `detr predict --track` as typed."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from detr.video import VideoWriter

SMALL = ["--imgsz", "64", "--conf", "0.02", "--max-det", "5"]


@pytest.fixture
def walk(tmp_path):
    with VideoWriter(tmp_path / "walk.mp4", rate=10) as writer:
        for _ in range(4):
            writer.write(np.full((48, 64, 3), 100, np.uint8))
    return "walk.mp4"


def test_track_is_predict_with_track(tmp_path, detr_program, walk):
    pytest.importorskip("trackers")
    words = [walk, "--save-json", "--save-mot", "--line", "0.5,0,0.5,1:door", *SMALL]
    texts = []
    for verb in (["track"], ["predict", "--track"]):
        code, out, err = detr_program(*verb, *words, "--name", verb[0])
        assert (code, err) == (0, "") and "door: 0 in, 0 out" in out
        folder = tmp_path / "runs" / "track" / verb[0]
        assert sorted(path.name for path in folder.iterdir()) == ["mot", "walk.jsonl", "walk.mp4"]
        texts.append((folder / "mot" / "walk.txt").read_text())
    assert texts[0] == texts[1] and texts[0].startswith("2,1,")
    assert "door" in json.loads((folder / "walk.jsonl").read_text().splitlines()[0])["counts"]


def test_counts_stand_in_the_summary(detr_program, walk):
    pytest.importorskip("trackers")
    code, out, _ = detr_program("track", walk, "--json", "--no-save", "--zone", "0,0,1,0,1,1", *SMALL)
    said = json.loads(out)
    assert code == 0 and set(said["counts"][walk]["zone 1"]) == {"in", "out", "inside", "seen"}
    assert said["tracks"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "walk.mp4", "--line", "0,0,1,1"], "--line is for following objects; say --track"),
        (["predict", "walk.mp4", "--save-mot"], "--save-mot is for following objects"),
        (["track", "walk.mp4", "--line", "0,0,1"], "line '0,0,1': expected x1,y1,x2,y2"),
        (["track", "walk.mp4", "--zone", "0,0,1,1"], "zone '0,0,1,1': expected x1,y1,x2,y2,x3,y3"),
        (["track", "walk.mp4", "--weak", "0.5"], "weak not above conf"),
        (["track", "walk.mp4", "--fps", "0"], "--fps 0.0: expected frames per second"),
        (["track", "a.png"], "a.png is an image, in which nothing moves"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, detr_program, walk, words, said):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    code, _, err = detr_program(*words)
    assert code == 2 and said in err
    assert not (tmp_path / "runs").exists()


def test_without_the_library_the_line_to_type_is_said(detr_program, walk, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trackers", None)
    code, _, err = detr_program("track", walk)
    assert code == 2 and "pip install 'detr-toolkit[track]'" in err
    assert not (tmp_path / "runs").exists()
