import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr.engine.boxes import Boxes
from detr.engine.results import Results, write_image
from detr.errors import InputError
from detr.records import Detections

NAMES = {0: "cat", 1: "dog", 2: "a/b"}


def made(*, tracks=None, boxes=((10, 20, 50, 40), (0, 0, 100, 50)), labels=(1, 0), scores=(0.75, 0.5)):
    image = np.zeros((50, 100, 3), np.uint8)
    image[..., 0] = 200  # red
    found = Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.long),
        None if tracks is None else torch.tensor(tracks),
    )
    return Results.of(image, found, path="some/street.jpg", names=NAMES)


def empty():
    return made(boxes=(), labels=(), scores=())


def test_boxes_come_in_four_forms():
    boxes = made().boxes
    assert boxes.xyxy.tolist() == [[10, 20, 50, 40], [0, 0, 100, 50]]
    assert boxes.xywh.tolist() == [[30, 30, 40, 20], [50, 25, 100, 50]]
    torch.testing.assert_close(boxes.xyxyn[0], torch.tensor([0.1, 0.4, 0.5, 0.8]))
    torch.testing.assert_close(boxes.xywhn[1], torch.tensor([0.5, 0.5, 1.0, 1.0]))
    assert boxes.conf.tolist() == [0.75, 0.5] and boxes.cls.tolist() == [1, 0]
    assert boxes.id is None and boxes.shape == (2, 6) and boxes.orig_shape == (50, 100)


def test_arrays_say_the_same_as_tensors():
    tensors, arrays = made().boxes, made().numpy().boxes
    for name in ("data", "xyxy", "xywh", "xyxyn", "xywhn", "conf", "cls"):
        value = getattr(arrays, name)
        assert isinstance(value, np.ndarray) and value.dtype == np.float32
        np.testing.assert_allclose(value, getattr(tensors, name).numpy(), rtol=1e-6)


def test_tracks_stand_where_users_look_for_them():
    boxes = made(tracks=[7, 9]).boxes
    assert boxes.id.tolist() == [7, 9] and boxes.is_track
    assert boxes.data[0].tolist() == [10, 20, 50, 40, 7, 0.75, 1]
    assert made(tracks=[7, 9]).detections.track_ids.tolist() == [7, 9]


def test_results_are_counted_indexed_and_iterated():
    results = made()
    assert len(results) == len(results.boxes) == 2
    assert results[0].boxes.cls.tolist() == [1]
    assert results[-1].boxes.cls.tolist() == [0]
    assert [int(box.cls) for box in results.boxes] == [1, 0]
    assert [one.boxes.conf.item() for one in results] == [0.75, 0.5]
    assert len(results[results.boxes.conf > 0.6]) == 1
    assert len(results[5:]) == 0


def test_a_part_keeps_what_belongs_to_its_boxes():
    results = replace(made(tracks=[7, 9]), as_found=torch.tensor([[10.0, 20, 50, 40], [-9, -9, 120, 60]]))
    for part in (results[1], results[-1:], results[torch.tensor([False, True])], list(results)[1]):
        assert part.as_found.tolist() == [[-9, -9, 120, 60]] and part.boxes.id.tolist() == [9]
        assert part.image is results.image and part.names == results.names


def test_results_move_as_their_boxes_do():
    results = made()
    assert results.to(torch.float64).boxes.data.dtype == torch.float64
    assert isinstance(results.numpy().boxes.data, np.ndarray) and isinstance(results.cpu().boxes.data, torch.Tensor)
    assert results.numpy().image is results.image


def test_the_picture_is_shown_in_its_colours(monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda picture, title: shown.append((np.array(picture)[45, 80], title)))
    made().show()
    assert [(pixel.tolist(), title) for pixel, title in shown] == [([200, 0, 0], "some/street.jpg")]


def test_nothing_found_is_an_answer_too(tmp_path):
    results = empty()
    assert len(results) == 0 and results.boxes.xyxy.shape == (0, 4) and results.boxes.xywhn.shape == (0, 4)
    assert results.summary() == [] and results.to_json() == "[]" and results.verbose() == "nothing"
    assert (results.plot() == results.orig_img).all()
    assert Path(results.save_txt(tmp_path / "a.txt")).read_text() == ""
    assert list(results.to_df().columns)[:3] == ["name", "class", "confidence"]
    assert len(results.to_supervision()) == 0


def test_a_result_is_shown_in_one_line():
    assert repr(made()) == "Results('some/street.jpg', 100 x 50: 1 dog, 1 cat)"
    assert repr(empty()) == "Results('some/street.jpg', 100 x 50: nothing)"


def test_what_other_models_find_is_none():
    assert [getattr(made(), name) for name in ("masks", "obb", "keypoints", "probs")] == [None] * 4


def test_arrays_that_leave_are_bgr():
    results = made()
    assert results.orig_img[0, 0].tolist() == [0, 0, 200] and results.image[0, 0].tolist() == [200, 0, 0]
    assert results.plot()[45, 80].tolist() == [0, 0, 200]
    assert results.plot(channels="rgb")[45, 80].tolist() == [200, 0, 0]
    with pytest.raises(InputError, match="expected 'bgr' or 'rgb'"):
        results.plot(channels="hsv")


def test_supervision_takes_results_as_they_are():
    supervision = pytest.importorskip("supervision")
    for results in (made(tracks=[7, 9]), made(tracks=[7, 9]).numpy()):
        taken = supervision.Detections.from_ultralytics(results)
        np.testing.assert_array_equal(taken.xyxy, [[10, 20, 50, 40], [0, 0, 100, 50]])
        assert taken.confidence.tolist() == [0.75, 0.5]
        assert taken.class_id.tolist() == [1, 0] and taken.tracker_id.tolist() == [7, 9]
        assert taken["class_name"].tolist() == ["dog", "cat"] and taken.mask is None
    assert made().to_supervision().tracker_id is None


def test_a_summary_is_plain_and_goes_through_json():
    rows = made(tracks=[7, 9]).summary()
    assert rows[0] == {
        "name": "dog",
        "class": 1,
        "confidence": 0.75,
        "box": {"x1": 10.0, "y1": 20.0, "x2": 50.0, "y2": 40.0},
        "track_id": 7,
    }
    assert json.loads(made(tracks=[7, 9]).to_json()) == rows
    third = made(boxes=((1 / 3, 0, 1, 1),), labels=(0,), scores=(2 / 3,))
    assert third.summary()[0]["confidence"] == 0.66667 and third.summary(decimals=2)[0]["box"]["x1"] == 0.33
    assert json.loads(third.to_json(True, 4))[0]["box"]["x1"] == 0.0033 and "0.67,0.33," in third.to_csv(decimals=2)
    assert made().summary(normalize=True)[0]["box"] == {"x1": 0.1, "y1": 0.4, "x2": 0.5, "y2": 0.8}


def test_a_data_frame_has_a_row_for_each_box():
    table = made().to_df()
    assert table["name"].tolist() == ["dog", "cat"] and table["x2"].tolist() == [50, 100]


def test_csv_is_that_table_without_pandas(monkeypatch):
    table = made(tracks=[7, 9]).to_df().to_csv(index=False)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert made(tracks=[7, 9]).to_csv() == table and table.startswith("name,class,confidence,x1,y1,x2,y2,track_id\n")


@pytest.mark.parametrize(("method", "module"), [("to_df", "pandas"), ("to_supervision", "supervision")])
def test_a_missing_helper_says_how_to_get_it(monkeypatch, method, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"pip install {module}"):
        getattr(made(), method)()


def test_pictures_are_saved_in_the_format_of_their_ending(tmp_path, monkeypatch):
    for ending, form in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
        with Image.open(made().save(tmp_path / f"a.{ending}")) as picture:
            assert picture.format == form and picture.size == (100, 50)
            assert np.abs(np.array(picture.convert("RGB"))[45, 80].astype(int) - (200, 0, 0)).max() < 12
    monkeypatch.chdir(tmp_path)
    assert made().save() == "results_street.jpg" and (tmp_path / "results_street.jpg").exists()
    with pytest.raises(InputError, match="no image format"):
        made().save(tmp_path / "a.xyz")
    assert not (tmp_path / "a.xyz").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a\.jpg"):
        made().save(tmp_path / "file" / "a.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("room", [0, 1000])
def test_a_picture_that_does_not_fit_on_the_disk_is_an_error_and_leaves_nothing(tmp_path, name, room):
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.raises(InputError, match=f"cannot write .*{name}"):
            write_image(tmp_path / name, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_text_lines_are_those_of_yolo(tmp_path):
    made().save_txt(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "1 0.3 0.6 0.4 0.4\n0 0.5 0.5 1 1\n"
    made().save_txt(tmp_path / "a.txt", save_conf=True)
    assert (tmp_path / "a.txt").read_text().splitlines()[0] == "1 0.3 0.6 0.4 0.4 0.75"


def test_crops_lie_in_a_folder_for_each_class(tmp_path):
    results = made(
        boxes=((10, 20, 50, 40), (0, 0, 100, 50), (200, 200, 300, 300)), labels=(1, 2, 0), scores=(0.9, 0.8, 0.7)
    )
    written = results.save_crop(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == ["dog/street-0.jpg", "a_b/street-1.jpg"]
    with Image.open(written[0]) as picture:
        assert picture.size == (40, 20)


def test_counts_are_said_in_words():
    assert made(boxes=((0, 0, 1, 1),) * 3, labels=(1, 0, 0), scores=(0.9, 0.8, 0.7)).verbose() == "2 cats, 1 dog"


def test_boxes_move_between_kinds():
    boxes = made().boxes
    assert boxes.to(torch.float64).data.dtype == torch.float64
    assert isinstance(boxes.numpy().to("cpu").data, torch.Tensor)
    assert isinstance(boxes.numpy().cpu().data, np.ndarray)
    assert isinstance(Boxes(boxes.data, (1, 1))[0], Boxes)
