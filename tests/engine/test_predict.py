import json
import os
import threading
from pathlib import Path
from shutil import rmtree

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detr.classes import Classes
from detr.data.sources import find_splits
from detr.engine import saving
from detr.engine.detector import Detector
from detr.engine.predict import predict
from detr.engine.saving import Wanted
from detr.engine.tracking import Tracking
from detr.errors import InputError
from detr.image import InputConfig
from detr.models.postprocess import Scoring
from detr.records import Output, Predictions
from detr.video import VideoWriter, find_sources

ALL = Wanted(json=True, txt=True, crop=True, conf=True)
CLASSES = Classes((10, 20, 30), ("red", "green", "blue"))


class ColourFinder(nn.Module):
    """Finds one box, in the middle, of the class of the image's strongest colour."""

    scoring = Scoring()

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"arch": "rtdetr", "input": InputConfig(height=32, width=32)})
        self.classes = CLASSES
        self.batches = []

    def forward(self, images, padding=None):
        self.batches.append(len(images))
        logits = torch.full((len(images), 1, 3), -4.0)
        logits[torch.arange(len(images)), 0, images.mean((2, 3)).argmax(1)] = 3.0
        return Output((Predictions(logits, torch.tensor([0.5, 0.5, 0.5, 0.5]).expand(len(images), 1, 4)),))


def plain(index, height=48, width=64):
    image = np.full((height, width, 3), 20, np.uint8)
    image[..., index % 3] = 200
    return image


def save(path, index=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plain(index)).save(path)
    return path


def film(path, count=12, rate=10):
    with VideoWriter(path, rate=rate) as writer:
        for index in range(count):
            writer.write(plain(index))
    return path


def run(folder, *sources, wanted=ALL, detector=None, conf=0.25, **options):
    detector = detector or Detector(ColourFinder(), device="cpu")
    settings = detector.settings(conf=conf)
    options.setdefault("say", lambda line: None)
    return predict(detector, find_sources(sources), settings, folder, wanted=wanted, **options)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def times(path):
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_and_their_names_beside_the_images_are_a_data_set(tmp_path):
    save(tmp_path / "out" / "images" / "a.png", 1)
    run(tmp_path / "out", tmp_path / "out" / "images", wanted=Wanted(images=False, txt=True))
    read = find_splits(tmp_path / "out")["train"].read()
    assert read.classes.names[read.labels[0]] == "green" and read.boxes.tolist() == [[16, 12, 32, 24]]


def test_an_image_leaves_a_drawing_labels_crops_and_rows(tmp_path):
    save(tmp_path / "in" / "000123.png", 1)
    out = tmp_path / "out"
    summary = run(out, tmp_path / "in")
    assert files(out) == [
        "000123.png",
        "classes.txt",
        "crops/green/000123-0.jpg",
        "labels/000123.txt",
        "predictions.json",
    ]
    assert (out / "labels" / "000123.txt").read_text().startswith("1 0.5 0.5 0.5 0.5 0.9525")
    (row,) = json.loads((out / "predictions.json").read_text())
    file = {"image_id": 123, "file_name": row["file_name"]}
    kind = {"category_id": 20, "category": "green"}
    assert row == {**file, **kind, "bbox": [16, 12, 32, 24], "score": pytest.approx(0.95257, abs=1e-5)}
    assert int(Path(row["file_name"]).stem) == 123
    assert (summary.images, summary.videos, summary.frames, summary.detections) == (1, 0, 1, 1)
    with Image.open(out / "000123.png") as picture:
        assert (np.array(picture) != plain(1)).any()


def test_only_what_is_wanted_is_left(tmp_path):
    save(tmp_path / "a.png")
    film(tmp_path / "b.mp4")
    nothing = Wanted(images=False, videos=False)
    run(tmp_path / "out", tmp_path / "a.png", tmp_path / "b.mp4", wanted=nothing)
    assert not (tmp_path / "out").exists()
    run(tmp_path / "out", tmp_path / "a.png", tmp_path / "b.mp4", wanted=Wanted(videos=False))
    assert files(tmp_path / "out") == ["a.png"]


def test_a_video_leaves_a_video_and_a_line_for_each_frame(tmp_path):
    film(tmp_path / "walk.mp4")
    out = tmp_path / "out"
    summary = run(out, tmp_path / "walk.mp4", wanted=Wanted(json=True))
    assert files(out) == ["walk.jsonl", "walk.mp4"]
    lines = lines_of(out / "walk.jsonl")
    assert [line["frame"] for line in lines] == list(range(12))
    assert [line["time"] for line in lines] == pytest.approx([i / 10 for i in range(12)])
    assert [line["detections"][0]["name"] for line in lines[:3]] == ["red", "green", "blue"]
    assert (summary.videos, summary.frames, summary.detections) == (1, 12, 12)
    with av.open(str(out / "walk.mp4")) as container:
        assert [float(f.pts * f.time_base) for f in container.decode(video=0)] == pytest.approx(
            [i / 10 for i in range(12)]
        )


@pytest.mark.skipif(os.name != "posix", reason="pipes in the file system")
def test_a_pipe_with_a_name_is_read_once_and_whole(tmp_path):
    with av.open(str(film(tmp_path / "walk.mp4", 30))) as film_file, av.open(str(tmp_path / "whole.ts"), "w") as whole:
        copy = whole.add_stream_from_template(film_file.streams.video[0])
        for packet in film_file.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                whole.mux(packet)
    os.mkfifo(tmp_path / "walk.ts")
    writer = threading.Thread(
        target=lambda: (tmp_path / "walk.ts").write_bytes((tmp_path / "whole.ts").read_bytes()), daemon=True
    )
    writer.start()
    summary = run(tmp_path / "out", tmp_path / "walk.ts")
    writer.join(20)
    assert (summary.frames, summary.notes) == (30, [])


def test_a_stride_keeps_the_timing(tmp_path):
    film(tmp_path / "walk.mp4")
    run(tmp_path / "out", tmp_path / "walk.mp4", wanted=Wanted(json=True), stride=5)
    assert [line["frame"] for line in lines_of(tmp_path / "out" / "walk.jsonl")] == [0, 5, 10]
    assert times(tmp_path / "out" / "walk.mp4") == pytest.approx([0, 0.5, 1.0])


def test_names_that_meet_are_both_kept(tmp_path):
    save(tmp_path / "one" / "a.png", 0)
    save(tmp_path / "two" / "A.png", 1)
    save(tmp_path / "two" / "a.jpg", 2)
    run(tmp_path / "out", tmp_path / "one", tmp_path / "two", wanted=Wanted(txt=True))
    labels = tmp_path / "out" / "labels"
    assert files(labels) == ["A-2.txt", "a-3.txt", "a.txt"]
    assert [(labels / name).read_text()[0] for name in ("a.txt", "A-2.txt", "a-3.txt")] == ["0", "1", "2"]


def test_pictures_side_by_side_are_seen_as_one_by_one(tmp_path, threads, small_shapes):
    pictures = find_splits(small_shapes)["train"].images
    found = []
    for count in (1, 4):
        threads(count)
        run(tmp_path / f"{count}", pictures, detector=Detector(device="cpu"), wanted=Wanted(json=True))
        found.append(json.loads((tmp_path / f"{count}" / "predictions.json").read_text()))
    one_by_one, side_by_side = found
    assert len(one_by_one) == len(side_by_side) > 6
    for a, b in zip(one_by_one, side_by_side, strict=True):
        assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
        np.testing.assert_allclose([*a["bbox"], a["score"]], [*b["bbox"], b["score"]], atol=1e-3)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_reach_over_sources_and_keep_the_order(tmp_path, threads, batch, count):
    threads(count)
    for index in range(5):
        save(tmp_path / "in" / f"{index}.png", index)
    film(tmp_path / "in" / "walk.mp4", 4)
    detector = Detector(ColourFinder(), device="cpu")
    run(tmp_path / "out", tmp_path / "in", detector=detector, batch=batch, wanted=Wanted(json=True))
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(0, 10), (1, 20), (2, 30), (3, 10), (4, 20)]
    assert len(lines_of(tmp_path / "out" / "walk.jsonl")) == 4
    assert max(detector.network.batches) == min(batch, 9) and sum(detector.network.batches) == 9


def test_bad_files_are_listed_and_the_others_done(tmp_path):
    for index in range(6):
        save(tmp_path / "in" / f"{index}.png", index)
    (tmp_path / "in" / "2.png").write_text("<html>")
    (tmp_path / "in" / "4.mp4").write_bytes(b"")
    said = []
    summary = run(tmp_path / "out", tmp_path / "in", say=said.append, wanted=Wanted())
    assert [Path(source).name for source, _ in summary.failures] == ["2.png", "4.mp4"]
    assert "HTML" in summary.failures[0][1] and "empty" in summary.failures[1][1]
    # Names depend on the list alone: the broken 4.mp4 comes before 4.png, and keeps its name.
    assert files(tmp_path / "out") == ["0.png", "1.png", "3.png", "4-2.png", "5.png"]
    assert len(said) == 5 and summary.images == 5


def odd_images(folder):
    """Every image of a kind that some decoder stumbles over -> the names of those that are whole."""
    folder.mkdir()
    picture = Image.fromarray(plain(0))
    for mode in ("L", "1", "P", "LA", "RGBA", "CMYK"):
        picture.convert(mode).save(folder / f"{mode}.tiff")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("P").save(folder / "palette-alpha.png", transparency=bytes(range(256)))
    Image.fromarray(np.full((9, 9), 30_000, np.uint16)).save(folder / "deep.png")
    for name, size in (("dot", (1, 1)), ("wide", (30_000, 10)), ("tall", (10, 65_500))):
        Image.new("RGB", size, (9, 9, 200)).save(folder / f"{name}.png")
    for ending in ("webp", "bmp", "gif", "avif", "jp2"):
        picture.save(folder / f"format.{ending}")
    for name in ("späße 漢字", "-dash", "%03d", "a;touch x", "two  blanks"):
        picture.save(folder / f"{name}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    (folder / "really-png.jpg").write_bytes((folder / "dot.png").read_bytes())
    whole = {path.name for path in folder.iterdir()}
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tiff")
    data = (folder / "cmyk.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(data[: len(data) // 2])
    (folder / "two-bytes-short.jpg").write_bytes(data[:-2])
    (folder / "half.png").write_bytes((folder / "%03d.png").read_bytes()[:60])
    for name, content in (("empty", b""), ("text", b"hello"), ("page", b"<html>"), ("zeros", b"\0" * 99)):
        (folder / f"{name}.jpg").write_bytes(content)
    return whole


def test_every_odd_image_is_either_done_or_named(tmp_path):
    whole = odd_images(tmp_path / "in")
    summary = run(tmp_path / "out", tmp_path / "in", wanted=ALL, conf=0.0, batch=4)
    bad = {path.name for path in (tmp_path / "in").iterdir()} - whole
    assert {Path(source).name for source, _ in summary.failures} == bad
    assert summary.images == len(whole)
    with Image.open(tmp_path / "out" / "turned.jpg") as picture:
        assert picture.size == (48, 64), "upright"
    for row in json.loads((tmp_path / "out" / "predictions.json").read_text()):
        assert min(row["bbox"]) >= 0 and 0 <= row["score"] <= 1


def test_fail_fast_stops_at_the_first(tmp_path):
    for index in range(6):
        save(tmp_path / "in" / f"{index}.png", index)
    (tmp_path / "in" / "2.png").write_text("<html>")
    summary = run(tmp_path / "out", tmp_path / "in", fail_fast=True, wanted=Wanted())
    assert len(summary.failures) == 1 and files(tmp_path / "out") == ["0.png", "1.png"]


def test_a_damaged_video_is_done_as_far_as_it_goes_and_said(tmp_path):
    path = film(tmp_path / "a.mp4", 60)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    summary = run(tmp_path / "out", path, wanted=Wanted())
    assert 0 < summary.frames < 60
    assert any("of the 60 frames" in note for note in summary.notes)
    assert (tmp_path / "out" / "a.mp4").exists()


def test_classes_are_written_with_their_original_ids(tmp_path):
    save(tmp_path / "some name.png", 2)
    run(tmp_path / "out", tmp_path / "some name.png")
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (row["image_id"], row["category_id"]) == ("some name", 30)


def test_each_source_is_told_with_what_was_found_in_it(tmp_path):
    save(tmp_path / "a.png", 1), save(tmp_path / "b.png", 1), film(tmp_path / "c.mp4", 7)
    said = []
    run(tmp_path / "out", *(tmp_path / name for name in ("a.png", "b.png", "c.mp4")), say=said.append)
    assert [line.split(": ", 1)[1] for line in said[:2]] == ["1 detection (1 green)"] * 2
    assert ": 7 frames, 7 detections (3 red, 2 green, 2 blue), " in said[2]


def test_nothing_found_leaves_empty_lists(tmp_path):
    save(tmp_path / "a.png")
    run(tmp_path / "out", tmp_path / "a.png", conf=0.99)
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == []
    assert (tmp_path / "out" / "labels" / "a.txt").read_text() == ""


def test_who_finds_nothing_is_told_the_best_score_of_all_frames_and_the_threshold(tmp_path):
    save(tmp_path / "a.png"), film(tmp_path / "b.mp4", 3)
    summary = run(tmp_path / "out", tmp_path / "a.png", tmp_path / "b.mp4", conf=0.96)
    assert ", 0 detections (best score 0.952, --conf 0.96), " in summary.text
    assert (summary.to_json()["best_score"], summary.to_json()["conf"]) == (pytest.approx(0.95257, abs=1e-5), 0.96)
    sliced = Detector(ColourFinder(), device="cpu")(tmp_path / "a.png", conf=0.96, slice=32)
    assert len(sliced[0]) == 0 and sliced[0].best_score == summary.best_score
    followed = run(tmp_path / "tracks", film(tmp_path / "c.mp4", 1), tracking=Tracking())
    assert "0 detections (best score 0.952, but no object was found in two successive frames)" in followed.text
    (tmp_path / "thresholds.json").write_text(json.dumps({"thresholds": {"red": 0.99}}))
    by_class = run(tmp_path / "by-class", tmp_path / "a.png", conf=tmp_path / "thresholds.json")
    assert "0 detections (best score 0.952, all below the thresholds of --conf)" in by_class.text
    assert by_class.to_json()["conf"] is None


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_the_network_is_not_the_fault_of_a_file(tmp_path, threads, count):
    threads(count)

    class Broken(ColourFinder):
        def forward(self, images, padding=None):
            return Output((Predictions(torch.full((1, 1, 3), torch.nan), torch.zeros(1, 1, 4)),))

    save(tmp_path / "a.png")
    with pytest.raises(InputError, match="NaN"):
        run(tmp_path / "out", tmp_path / "a.png", detector=Detector(Broken(), device="cpu"))


@pytest.mark.parametrize("count", [1, 2])
def test_an_interruption_leaves_finished_files_with_the_frames_so_far(tmp_path, threads, count):
    threads(count)
    film(tmp_path / "walk.mp4", 40)
    save(tmp_path / "a.png")

    add = saving.Saver.add

    def add_until(self, result, frame):
        if frame.index == 25:
            raise KeyboardInterrupt
        add(self, result, frame)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving.Saver, "add", add_until)
        run(tmp_path / "out", tmp_path / "a.png", tmp_path / "walk.mp4", wanted=Wanted(json=True))
    assert files(tmp_path / "out") == ["a.png", "predictions.json", "walk.jsonl", "walk.mp4"]
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 1
    assert len(lines_of(tmp_path / "out" / "walk.jsonl")) == 25
    assert len(times(tmp_path / "out" / "walk.mp4")) == 25


def test_a_folder_that_is_removed_ends_it_and_is_not_made_anew(tmp_path):
    for index in range(3):
        save(tmp_path / "in" / f"{index}.png", index)
    with pytest.raises(InputError, match=r"^cannot write to .*out: it was removed meanwhile$"):
        run(tmp_path / "out", tmp_path / "in", wanted=Wanted(), say=lambda line: rmtree(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_with_one_line_and_keeps_the_rest(tmp_path):
    """No file may grow over 40 kB: the video can't be written, what stood before stays."""
    resource = pytest.importorskip("resource")
    save(tmp_path / "a.png")
    with VideoWriter(tmp_path / "noise.mp4") as writer:
        noise = np.random.default_rng(0)
        for _ in range(40):
            writer.write(noise.integers(0, 255, (240, 320, 3), np.uint8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"noise\.mp4"):
            run(tmp_path / "out", tmp_path / "a.png", tmp_path / "noise.mp4", wanted=Wanted(txt=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "a.png" in files(tmp_path / "out") and "noise.mp4" not in files(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))
