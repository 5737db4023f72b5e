"""Explaining what a detector has found: the same detections, and one explanation for each."""

import gc
import pickle
import re
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch

from detr.classes import Classes
from detr.draw import write_image
from detr.engine.detector import Detector
from detr.engine.explained import Summary, explain_sources
from detr.engine.explaining import explain
from detr.engine.results import Results
from detr.errors import InputError, UsageError
from detr.models import build_model
from detr.video import Frame, Source, find_sources

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
OPTIONS = {"conf": 0.0, "max_det": 4, "imgsz": 64}


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return Detector(build_model("rtdetr-tiny", classes=Classes.from_names(["cat", "dog"])))


@pytest.mark.parametrize("half", [False, True])
def test_detections_are_those_of_predict_to_the_bit(detector, half):
    [predicted] = detector(IMAGE, half=half, channels="rgb", **OPTIONS)
    result, found = explain(detector, Frame(IMAGE, Source("image", "a.png")), detector.settings(half=half, **OPTIONS))
    assert torch.equal(result.boxes.data, predicted.boxes.data) and torch.equal(result.as_found, predicted.as_found)
    assert [each.score for each in found] == result.boxes.conf.tolist()
    assert [list(each.box) for each in found] == result.as_found.tolist()


def test_results_explain_their_boxes(detector, tmp_path):
    [result] = detector(IMAGE, channels="rgb", **OPTIONS)
    one = result.explain(2)
    assert list(one.box) == result.as_found[2].tolist() and one.name == result.names[int(result.boxes.cls[2])]
    assert one.image is result.image
    assert result[2].explain(0).query == result.explain(-2).query == one.query
    one.save(tmp_path / "one.png", layer=0)
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_results_say_what_became_of_a_place(detector):
    [result] = detector(IMAGE, channels="rgb", **OPTIONS)
    left, top, right, bottom = result.as_found[0].clamp(min=0).tolist()
    place = [left, top, min(right, 80.0), min(bottom, 48.0)]
    asked, nearest = result.explain_place(place)
    assert " is there, with IoU " in asked.said and len(nearest) == 3
    shares = [each / side for each, side in zip(place, (80, 48) * 2, strict=True)]
    assert result.explain_place(shares)[0].said == asked.said
    assert {each.name for each in result.explain_place(place, classes="dog")[1]} == {"dog"}
    with pytest.raises(InputError, match="outside of the picture, which is 80 x 48"):
        result.explain_place([0, 0, 90, 48])


def test_boxes_found_in_a_batch_are_found_again(detector):
    for result in detector([IMAGE, IMAGE[::-1].copy()], batch=2, channels="rgb", **OPTIONS):
        assert result.explain(1).score == pytest.approx(float(result.boxes.conf[1]), abs=1e-4)


def test_a_detection_that_is_not_there_is_refused(detector):
    [result] = detector(IMAGE, channels="rgb", **OPTIONS)
    with pytest.raises(UsageError, match="detection 4: there are 4, counted from 0"):
        result.explain(4)


def test_a_large_picture_is_explained_on_a_small_one(detector):
    large, settings = np.repeat(np.repeat(IMAGE, 4, 0), 4, 1), detector.settings(**OPTIONS)
    frame = Frame(large, Source("image", "a.png"))
    (_, full), (result, small) = explain(detector, frame, settings), explain(detector, frame, settings, longest=160)
    assert small[0].image.shape == (96, 160, 3) and result.image.shape == large.shape
    for one, other in zip(full, small, strict=True):
        assert (one.query, one.score) == (other.query, other.score)
        np.testing.assert_allclose(np.array(one.box) / 2, other.box, atol=1e-3)
        np.testing.assert_allclose(one.points.xy / 2, other.points.xy, atol=1e-3)


def test_what_a_tile_showed_says_where_to_look(detector):
    wide = np.concatenate([IMAGE, IMAGE[::-1]], 1)
    [result] = detector(wide, channels="rgb", slice=48, tiles_only=True, **OPTIONS)
    with pytest.raises(InputError, match="found in a tile") as refused:
        result.explain(0)
    part = eval(re.search(r"result\.image\[.*?\]", str(refused.value))[0])
    assert part.shape == (48, 48, 3)
    [found] = detector(part, channels="rgb", **OPTIONS)
    assert found.explain(0).score == pytest.approx(float(result.boxes.conf[0]), abs=1e-4)


def test_results_do_not_keep_their_detector(detector):
    own = Detector(detector.network)
    [result] = own(IMAGE, channels="rgb", **OPTIONS)
    del own
    gc.collect()
    with pytest.raises(InputError, match="the detector that found this is gone"):
        result.explain(0)


def test_results_that_travelled_know_nobody(detector):
    [result] = detector(IMAGE, channels="rgb", **OPTIONS)
    copy = pickle.loads(pickle.dumps(result))
    assert torch.equal(copy.boxes.data, result.boxes.data)
    with pytest.raises(InputError, match="is gone"):
        copy.explain(0)


def test_results_of_nobody_say_so(detector):
    made = Results.of(IMAGE, detector(IMAGE, **OPTIONS)[0].detections, path="a", names=detector.names)
    with pytest.raises(InputError, match="weren't found by a detector here"):
        made.explain(0)


def test_another_model_is_noticed(detector):
    own = Detector(detector.network)
    [result] = own(IMAGE, channels="rgb", **OPTIONS)
    other = build_model("rtdetr-tiny", classes=own.classes).eval().requires_grad_(False)
    other.load_state_dict(own.network.state_dict())
    other.decoder.box_heads[-1].layers[-1].bias += 0.5
    own.network = other
    with pytest.raises(InputError, match="doesn't give that detection any more"):
        result.explain(0)


def test_what_only_answers_cannot_be_explained(detector):
    class Exported:
        name, config, classes, device = "onnx float32", detector.config, detector.classes, torch.device("cpu")

    frame = Frame(IMAGE, Source("image", "a.png"))
    with pytest.raises(UsageError, match="onnx float32 gives its answer only"):
        explain(Detector(Exported()), frame, detector.settings(**OPTIONS))
    compiled = Detector(detector.network, compile=True)
    with pytest.raises(UsageError, match="a compiled network can't be looked into"):
        explain(compiled, frame, detector.settings(**OPTIONS))


@pytest.fixture
def pictures(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", IMAGE)
    return find_sources([tmp_path / "a.png", tmp_path / "b.png"])


def test_a_folder_that_is_removed_ends_it_and_is_not_made_anew(detector, pictures, tmp_path):
    out, settings = tmp_path / "out", detector.settings(conf=1.0, imgsz=64)
    with pytest.raises(InputError, match=r"^cannot write to .*out: it was removed meanwhile$"):
        explain_sources(detector, pictures, settings, out, quiet=True, say=lambda line: rmtree(out))
    assert not out.exists()


def test_what_cannot_be_written_is_not_the_fault_of_a_picture(detector, pictures, tmp_path):
    out, settings = tmp_path / "out", detector.settings(conf=1.0, imgsz=64)
    (out / "b.png").mkdir(parents=True)
    with pytest.raises(InputError, match=r"^cannot write .*b\.png: it is a folder$"):
        explain_sources(detector, pictures, settings, out, quiet=True, say=lambda line: None)
    assert (out / "a.png").is_file()


def test_who_finds_nothing_to_explain_is_told_what_would():
    said = [Summary(Path("run"), Path("page"), frames=2, detections=found).text for found in (0, 1)]
    assert said == [
        "2 pictures, 0 detections explained (a lower --conf shows more)",
        "2 pictures, 1 detection explained",
    ]
