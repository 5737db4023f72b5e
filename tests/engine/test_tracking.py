"""Objects followed through whole videos, by a detector that finds every bright blob."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from detr.data.shapes_video import moving_shapes
from detr.engine.predict import predict
from detr.engine.saving import Wanted
from detr.engine.tracking import Tracking, places_of
from detr.errors import InputError, UsageError
from detr.records import Detections
from detr.tracking import Tracker
from detr.video import VideoWriter, as_sequences, find_sources

pytest.importorskip("trackers")

ALL = Wanted(json=True, mot=True)
STARTS = [(6, 8, 1.5), (50, 30, -1.2), (10, 52, 0.8)]  # x, y, pixels per frame


def frame_of(number):
    """Three blobs of 8 x 8 pixels, which go to the right, to the left and to the right in lanes of their own."""
    picture = np.full((64, 64, 3), 20, np.uint8)
    for x, y, speed in STARTS:
        left = round(x + speed * number)
        picture[y - 4 : y + 4, max(0, left - 4) : max(0, left + 4)] = 230
    return picture


def film(path, count=30):
    with VideoWriter(path, rate=10) as writer:
        for number in range(count):
            writer.write(frame_of(number))
    return path


def run(folder, *sources, detector, tracking=None, wanted=ALL, fps=None, **options):
    tracking = tracking or Tracking()
    settings = detector.settings(conf=tracking.lowest)
    found = find_sources(sources)
    found = found if fps is None else as_sequences(found, fps)
    options.setdefault("say", lambda line: None)
    return predict(detector, found, settings, folder, wanted=wanted, tracking=tracking, quiet=True, **options)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def lane_of(row):
    middle = (row["box"]["y1"] + row["box"]["y2"]) / 2
    return min(range(3), key=lambda lane: abs(STARTS[lane][1] - middle))


def test_ids_never_switch_and_line_counts_are_the_truth(tmp_path, blob_finder):
    film(tmp_path / "walk.mp4")
    tracking = Tracking(places=places_of(["0.5,0,0.5,1:middle"], ["0,0,64,0,64,20,0,20:top"]))
    summary = run(tmp_path / "out", tmp_path / "walk.mp4", detector=blob_finder(), tracking=tracking)
    lines = lines_of(tmp_path / "out" / "walk.jsonl")
    ids = {(lane_of(row), row["track_id"]) for line in lines for row in line["detections"]}
    assert len(lines) == 30 and sorted(ids) == sorted(dict(ids).items()) and len(ids) == 3
    assert [len(line["detections"]) for line in lines] == [0] + [3] * 29
    counts = summary.counts[str(tmp_path / "walk.mp4")]
    # Looking along the line, which runs down, its right is the left of the picture.
    assert counts["middle"] == {"in": {"blob": 1}, "out": {"blob": 2}}
    assert counts["top"] == {"in": {}, "out": {}, "inside": {"blob": 1}, "seen": {"blob": 1}}
    assert lines[-1]["counts"] == counts
    assert summary.tracks == 3 and "3 tracks" in summary.text


def test_the_text_is_that_of_mot_challenge(tmp_path, blob_finder):
    film(tmp_path / "walk.mp4", 12)
    run(tmp_path / "out", tmp_path / "walk.mp4", detector=blob_finder(), stride=2)
    rows = [line.split(",") for line in (tmp_path / "out" / "mot" / "walk.txt").read_text().splitlines()]
    assert sorted({int(row[0]) for row in rows}) == [3, 5, 7, 9, 11]  # from 1, as in the video
    assert {len(row) for row in rows} == {9}
    assert {row[1] for row in rows} == {"1", "2", "3"} and {tuple(row[7:]) for row in rows} == {("7", "-1")}
    width, height = map(float, rows[0][4:6])
    assert (width, height) == pytest.approx((8, 8), abs=1.5)


def test_ids_begin_anew_in_each_video(tmp_path, blob_finder):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        film(tmp_path / "in" / f"{name}.mp4", 5)
    summary = run(tmp_path / "out", tmp_path / "in", detector=blob_finder(), batch=4)
    for name in ("a", "b"):
        rows = (tmp_path / "out" / "mot" / f"{name}.txt").read_text().splitlines()
        assert {line.split(",")[1] for line in rows} == {"1", "2", "3"}
    assert summary.tracks == 6


def test_batches_change_nothing(tmp_path, blob_finder):
    film(tmp_path / "walk.mp4", 9)
    texts = []
    for batch in (1, 4):
        run(tmp_path / f"out{batch}", tmp_path / "walk.mp4", detector=blob_finder(), batch=batch)
        texts.append((tmp_path / f"out{batch}" / "mot" / "walk.txt").read_text())
    assert texts[0] == texts[1] != ""


def test_a_video_cut_short_keeps_all_before_the_break(tmp_path, blob_finder):
    whole = film(tmp_path / "whole.mp4", 60)
    with av.open(str(whole)) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: packets[40] + 5])
    for name in ("whole", "cut"):
        summary = run(tmp_path / "out", tmp_path / f"{name}.mp4", detector=blob_finder())
    assert any("could be read" in note for note in summary.notes)
    whole, cut = (lines_of(tmp_path / "out" / f"{name}.jsonl") for name in ("whole", "cut"))
    assert len(cut) == 40 and cut == whole[:40]
    whole, cut = ((tmp_path / "out" / "mot" / f"{name}.txt").read_text() for name in ("whole", "cut"))
    assert whole.startswith(cut) and cut.splitlines()[-1].startswith("40,")
    with av.open(str(tmp_path / "out" / "cut.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 40


def test_images_of_a_folder_are_a_video_where_that_is_said(tmp_path, blob_finder):
    (tmp_path / "street.v2").mkdir()
    for number in range(8):
        Image.fromarray(frame_of(number)).save(tmp_path / "street.v2" / f"{number:03}.png")
    (tmp_path / "street.v2" / "004.png").write_bytes(b"broken")
    summary = run(tmp_path / "out", tmp_path / "street.v2", detector=blob_finder(), fps=10)
    lines = lines_of(tmp_path / "out" / "street.v2.jsonl")
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 5, 6, 7]
    assert lines[-1]["time"] == pytest.approx(0.7)
    assert {row["track_id"] for row in lines[-1]["detections"]} == {1, 2, 3}
    assert summary.videos == 1 and "004.png" in summary.notes[0] and (tmp_path / "out" / "street.v2.mp4").exists()


def test_a_line_outside_of_the_picture_fails_that_video_alone(tmp_path, blob_finder):
    film(tmp_path / "walk.mp4", 3)
    tracking = Tracking(places=places_of(["0,900,600,900:door"], []))
    summary = run(tmp_path / "out", tmp_path / "walk.mp4", detector=blob_finder(), tracking=tracking)
    assert summary.failures == [(str(tmp_path / "walk.mp4"), "door lies outside of the picture, which is 64 x 64")]


def test_results_in_python_have_ids_trails_and_counts(tmp_path, blob_finder):
    film(tmp_path / "walk.mp4", 10)
    results = blob_finder().track(tmp_path / "walk.mp4", lines=["0,0.2,1,0.2:top"], stream=True)
    *_, last = results
    assert last.boxes.id.tolist() == [1, 2, 3] and last.boxes.is_track
    assert {track: len(way) for track, way in last.trails.items()} == {1: 9, 2: 9, 3: 9}
    assert last.counts[0].place.name == "top"
    assert last.summary()[0]["track_id"] == 1
    assert (last.plot(channels="rgb") != last.image).any()


def test_arrays_are_frames_where_that_is_said(blob_finder):
    frames = [frame_of(number) for number in range(4)]
    results = blob_finder().track(frames, fps=10)
    assert [len(one) for one in results] == [0, 3, 3, 3]
    with pytest.raises(UsageError, match="say fps=25"):
        blob_finder().track(frames)


@pytest.mark.parametrize(
    "options", [{"weak": 0.5}, {"weak": -0.1}, {"conf": 1.2}, {"patience": -1}, {"trail": float("nan")}]
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError, match="expected"):
        Tracking(**options)


def test_weak_detections_are_those_of_the_paper():
    assert Tracking(conf=0.5).lowest == Tracking(conf=0.25).lowest == 0.1
    assert Tracking(conf=0.05).lowest == 0.05 and Tracking(conf=0.5, weak=0.3).lowest == 0.3


def test_names_are_given_once():
    with pytest.raises(UsageError, match="two lines or zones are called 'a'"):
        Tracking(places=places_of(["0,0,1,1:a"], ["0,0,1,0,1,1:a"]))


def test_a_picture_by_itself_cannot_be_followed(tmp_path, blob_finder):
    Image.fromarray(frame_of(0)).save(tmp_path / "a.png")
    summary = run(tmp_path / "out", tmp_path / "a.png", detector=blob_finder())
    assert "a single picture, in which nothing can be followed" in summary.failures[0][1]


def test_tracks_of_the_generated_video_are_nearly_the_truth():
    """Shapes that hide each other under a moving camera, each detection a little off and some weak or missing."""
    random = np.random.default_rng(0)
    tracker = Tracker(rate=25)
    last, switches, matched, total = {}, 0, 0, 0
    for number, (_, things) in enumerate(moving_shapes(3, frames=75)):
        truth = torch.tensor([thing.box for thing in things], dtype=torch.float32)
        noisy = truth + torch.from_numpy(random.normal(0, 1, truth.shape)).float()
        scores = torch.from_numpy(random.choice([0.9, 0.2], len(things), p=[0.9, 0.1])).float()
        kept = torch.from_numpy(random.uniform(size=len(things)) < 0.97)
        labels = torch.tensor([thing.label for thing in things])
        found = tracker.update(Detections(noisy[kept], scores[kept], labels[kept]), time=number / 25)
        ids = {tuple(box): track for box, track in zip(found.boxes.tolist(), found.track_ids.tolist(), strict=True)}
        for thing, box in zip(things, noisy.tolist(), strict=True):
            track = ids.get(tuple(box))
            total += 1
            if track is not None:
                matched += 1
                switches += last.get(thing.track, track) != track
                last[thing.track] = track
    assert 1 - (total - matched + switches) / total > 0.9  # MOTA: there are no false detections
    assert switches <= 3


def test_memory_stays_level_over_a_video(tmp_path, blob_finder):
    """Of the whole way: reading, detecting, following, counting, drawing, encoding."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("resident memory is read as Linux tells it")
    film(tmp_path / "long.mp4", 40)
    pages = []
    sources = find_sources([str(tmp_path / "long.mp4")] * 15)
    tracking = Tracking(places=places_of(["0.5,0,0.5,1"], []))
    detector = blob_finder()
    predict(
        detector,
        sources,
        detector.settings(conf=0.1),
        tmp_path / "out",
        wanted=ALL,
        tracking=tracking,
        quiet=True,
        say=lambda line: pages.append(int(statm.read_text().split()[1])) if line.startswith(str(tmp_path)) else None,
    )
    assert len(pages) == 15
    growth = (pages[-1] - min(pages[4:8])) * 4096
    assert growth < 12 * 2**20, f"{growth / 2**20:.1f} MiB more after 600 frames than after 200"


def test_without_tracking_nothing_has_an_id(tmp_path, blob_finder):
    film(tmp_path / "walk.mp4", 2)
    (first, _) = blob_finder()(tmp_path / "walk.mp4")
    assert first.boxes.id is None and not first.counts and not first.trails
    with pytest.raises(InputError, match=r"holds no frame|cannot be opened"):
        (tmp_path / "empty.mp4").write_bytes(b"")
        blob_finder().track(tmp_path / "empty.mp4")
