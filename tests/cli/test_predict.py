"""`detr predict` as typed: exit codes, what stands on stdout and stderr, what lies in the folder."""

import json
import os
import signal
import sys
import time

import av
import numpy as np
import pytest
import torch
from PIL import Image

from detr import weights
from detr.classes import Classes
from detr.models import build_model
from detr.video import VideoWriter
from tests import programs

CLASSES = Classes((1, 2), ("cat", "dog"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Weights of a small network that has learned nothing: with --conf 0 it finds as much as it may."""
    torch.manual_seed(0)
    network = build_model("rtdetr-tiny", classes=CLASSES)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.write(path, network.state_dict(), model=network.config.model_dump(mode="json"), classes=CLASSES)
    return str(path)


@pytest.fixture
def detr_predict(tiny, detr_program):
    def run(*words, weights=tiny):
        size = [] if "--imgsz" in words else ["--imgsz", "64"]
        chosen = [] if weights is None else ["--weights", weights, *size]
        return detr_program("predict", *words, *chosen)

    return run


def save(path, colour=(200, 30, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), colour).save(path)
    return path


def film(path, count=6, size=(48, 64)):
    with VideoWriter(path, rate=10) as writer:
        for index in range(count):
            writer.write(np.full((*size, 3), index * 3 % 250, np.uint8))
    return path


def test_an_image_is_drawn_into_a_new_folder(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    code, out, err = detr_predict("a.png", "--conf", "0", "--max-det", "7", "--save-json", "--save-txt")
    assert (code, err) == (0, "")
    assert "a.png: 7 detections" in out and "1 image, 7 detections" in out
    assert out.rstrip().endswith(os.path.join("runs", "predict", "predict"))
    folder = tmp_path / "runs" / "predict" / "predict"
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "classes.txt", "labels", "predictions.json"]
    assert len(json.loads((folder / "predictions.json").read_text())) == 7
    detr_predict("a.png")
    assert (tmp_path / "runs" / "predict" / "predict-2").is_dir()


def test_images_and_videos_are_done_together(tmp_path, detr_predict):
    save(tmp_path / "in" / "a.png")
    film(tmp_path / "in" / "b.mp4")
    code, out, err = detr_predict("in", "--name", "mixed", "--vid-stride", "2", "--save-json", "--batch", "2")
    assert (code, err) == (0, "")
    assert "1 image and 1 video" in out
    folder = tmp_path / "runs" / "predict" / "mixed"
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.jsonl", "b.mp4", "predictions.json"]
    assert [json.loads(line)["frame"] for line in (folder / "b.jsonl").read_text().splitlines()] == [0, 2, 4]


def test_json_is_all_that_stands_on_stdout(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no")
    code, out, err = detr_predict("a.png", "b.png", "--json", "--conf", "0", "--max-det", "3")
    said = json.loads(out)
    assert code == 1 and (said["images"], said["detections"]) == (1, 3)
    assert said["failures"][0]["source"] == "b.png"
    assert err.rstrip().endswith("error: 1 of 2 sources failed")


def test_classes_are_given_by_name_or_number(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    for words, allowed in ((("--classes", "dog"), {2}), (("--classes", "0,dog"), {1, 2}), (("--classes", "0"), {1})):
        code, _, err = detr_predict("a.png", "--conf", "0", "--save-json", "--name", "c", "--overwrite", *words)
        assert (code, err) == (0, "")
        rows = json.loads((tmp_path / "runs" / "predict" / "c" / "predictions.json").read_text())
        assert {row["category_id"] for row in rows} == allowed


def test_bad_files_are_listed_at_the_end_and_the_exit_code_is_1(tmp_path, detr_predict):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "b.png").write_text("<html>")
    code, out, err = detr_predict("in")
    assert code == 1 and "2 images" in out
    assert err.splitlines() == [
        f"failed: {os.path.join('in', 'b.png')}: not an image we can read (looks like HTML, "
        "perhaps a web page saved in its place)",
        "error: 1 of 3 sources failed",
    ]


def test_one_bad_file_is_one_line(tmp_path, detr_predict):
    (tmp_path / "b.png").write_bytes(b"")
    code, out, err = detr_predict("b.png")
    assert (code, out, err) == (1, "", "error: b.png: not an image we can read (the file is empty)\n")
    assert not (tmp_path / "runs" / "predict" / "predict").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.png"], "gone.png: no such file"),
        (["*.jpg"], "no image or video matches"),
        (["empty"], "no image or video in this folder"),
        (["a.png", "--conf", "2.0"], "--conf 2.0: expected a number from 0 to 1\n"),
        (["a.png", "--conf", "25"], "did you mean 0.25?"),
        (["a.png", "--conf", "101"], "expected a number from 0 to 1\n"),
        (["a.png", "--threshold", "-1"], "from 0 to 1"),
        (["a.png", "--conf", "nan"], "from 0 to 1"),
        (["a.png", "--device", "cuda:77"], "cuda:77"),
        (["a.png", "--device", "gpu"], "expected auto, cpu"),
        (["a.png", "--imgsz", "wide"], "--imgsz wide: expected a side"),
        (["a.png", "--imgsz", "100"], "multiple of 32 up to 8192; the nearest is 96"),
        (["a.png", "--imgsz", "64,64,64"], "a side, or a height and a width"),
        (["a.png", "--line-width", "99999999999999999999"], "is not in the range"),
        (["a.png", "--max-det", "0"], "0 is not in the range"),
        (["a.png", "--classes", "doog"], "did you mean 'dog'"),
        ([], "Missing argument"),
        (["a.png", "--frob"], "No such option"),
        (["--source", "a.png"], "No such option '--source'; sources stand for themselves"),
        (["a.png", "--lr", "1"], "No such option '--lr'. "),
        (["a.png", "--conf-thres", "0.4"], "No such option '--conf-thres'; it is --conf"),
        (["a.png", "--model", "own.pt"], "no model is called 'own.pt'; a file is given with --weights"),
        (["model=own.pt", "source=a.png"], "error: model=own.pt: here that is written --weights own.pt\n"),
        (["source=a.png"], "error: source=a.png: here that is written a.png\n"),
        (["a.png", "conf=0.4"], "error: conf=0.4: here that is written --conf 0.4\n"),
        (["a.png", "--name", "conf=0.4", "--max-det", "0"], "0 is not in the range"),
        (["a.png", "save_txt=True"], "error: save_txt=True: here that is written --save-txt\n"),
    ],
)
def test_wrong_usage_exits_with_2_and_leaves_nothing(tmp_path, detr_predict, words, said):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "a.png")
    code, out, err = detr_predict(*words)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert not list(tmp_path.glob("runs/predict/*"))


def test_a_file_may_be_called_as_an_option_of_others(tmp_path, detr_predict):
    save(tmp_path / "conf=0.4.png")
    assert detr_predict("conf=0.4.png", "--imgsz", "64", "--no-save")[0] == 0


def test_the_input_need_not_be_square(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    assert detr_predict("a.png", "--imgsz", "64,96")[0] == 0


def test_the_output_is_tried_before_the_weights_are_read(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    code, _, err = detr_predict("a.png", "--project", "file", "--weights", "gone.safetensors", weights=None)
    assert code == 1 and "cannot write to" in err


def test_weights_that_are_none_are_said(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    code, _, err = detr_predict("a.png", "--weights", "gone.safetensors", weights=None)
    assert code == 2 and "gone.safetensors" in err
    (tmp_path / "page.pth").write_text("<html>")
    code, _, err = detr_predict("a.png", "--weights", "page.pth", weights=None)
    assert code == 1 and "page.pth" in err and err.count("\n") == 1
    assert not list(tmp_path.glob("runs/predict/*"))


def test_a_run_is_not_written_over_unless_allowed(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    assert detr_predict("a.png", "--name", "x")[0] == 0
    code, _, err = detr_predict("a.png", "--name", "x")
    assert code == 2 and "--overwrite" in err
    assert detr_predict("a.png", "--name", "x", "--overwrite")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only there a name can be any bytes")
def test_names_that_are_no_text_are_done_and_shown_with_backslashes(tmp_path, detr_predict):
    save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    film(tmp_path / "film.mp4", 2).rename(tmp_path / os.fsdecode(b"fil\xe9.mp4"))
    code, out, err = detr_predict(".", "--conf", "0", "--max-det", "1", "--save-json", "--save-txt")
    assert (code, err) == (0, "") and "caf\\udce9.png: 1 detection (" in out
    folder = tmp_path / "runs" / "predict" / "predict"
    assert json.loads((folder / "predictions.json").read_text())[0]["image_id"] == os.fsdecode(b"caf\xe9")
    assert (folder / os.fsdecode(b"fil\xe9.mp4")).exists()


def test_old_habits_are_answered(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    code, _, err = detr_predict("a.png", "--iou", "0.7")
    assert code == 0 and "--iou has no effect" in err


def test_nothing_to_save_leaves_no_folder(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    assert detr_predict("a.png", "--no-save", "--quiet")[0] == 0
    assert not list(tmp_path.glob("runs/predict/*"))


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    return film(tmp_path_factory.mktemp("video") / "long.mp4", 3000, size=(96, 128))


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_video_that_plays(tmp_path, tiny, long_video, number, code):
    words = ["predict", long_video, "--weights", tiny, "--imgsz", "64", "--save-json", "--device", "cpu"]
    lines = tmp_path / "predict" / "predict" / "long.jsonl"
    with programs.started("-m", "detr", *words, "--project", tmp_path) as program:
        while not lines.exists() or lines.read_text().count("\n") < 30:
            assert program.running(), program.said()
            time.sleep(0.05)
        program.send_signal(number)
        done = program.end()
    assert done.returncode == code and "what was done so far is in" in done.stderr
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    with av.open(str(lines.with_name("long.mp4"))) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert 30 <= frames < 3000 and abs(frames - len(written)) <= 1
    assert sorted(path.name for path in lines.parent.iterdir()) == ["long.jsonl", "long.mp4"]


def test_fewer_layers_and_queries_can_be_asked_for(tmp_path, detr_predict):
    save(tmp_path / "a.png")
    code, out, _ = detr_predict("a.png", "--conf", "0", "--queries", "3", "--layers", "1")
    assert code == 0 and "a.png: 6 detections" in out  # 3 queries, 2 classes
    code, _, err = detr_predict("a.png", "--layers", "4")
    assert code == 2 and "4 decoder layers: expected 1 to 3" in err
