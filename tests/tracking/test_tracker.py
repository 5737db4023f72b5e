import numpy as np
import pytest
import torch

from detr.errors import InputError
from detr.records import Detections
from detr.tracking import Tracker


def frame(*boxes, scores=None, labels=None):
    corners = torch.tensor([[x, y, x + 20, y + 30] for x, y in boxes], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([0.9] * len(boxes) if scores is None else scores)
    return Detections(corners, scores, torch.tensor([0] * len(boxes) if labels is None else labels))


def test_without_the_library_the_line_to_type_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackers", None)
    with pytest.raises(InputError, match=r"pip install 'detr-toolkit\[track\]'"):
        Tracker(rate=25)


class TestWithTheLibrary:
    @pytest.fixture(autouse=True)
    def library(self):
        pytest.importorskip("trackers")

    def test_ids_stay_while_objects_pass_each_other(self):
        tracker = Tracker(rate=25)
        for number in range(40):
            found = tracker.update(frame((4 * number, 10), (160 - 4 * number, 60)), time=number / 25)
            if number:
                assert found.track_ids.tolist() == [1, 2]
                assert found.boxes[:, 0].tolist() == [4 * number, 160 - 4 * number]

    def test_an_object_has_its_id_from_the_second_frame_on(self):
        tracker = Tracker(rate=25)
        assert len(tracker.update(frame((10, 10)))) == 0
        assert tracker.update(frame((11, 10))).track_ids.tolist() == [1]

    def test_weak_detections_keep_tracks_going_but_begin_none(self):
        tracker = Tracker(rate=25, conf=0.5)
        for number in range(5):
            tracker.update(frame((10 + number, 10)))
        found = tracker.update(frame((15, 10), (200, 10), scores=[0.2, 0.4]))
        assert found.track_ids.tolist() == [1] and found.scores.tolist() == pytest.approx([0.2])
        assert tracker.update(frame((200, 10), scores=[0.4])).track_ids.tolist() == []

    def test_a_score_of_conf_is_enough_to_begin_a_track(self):
        tracker = Tracker(rate=25, conf=0.3)
        tracker.update(frame((10, 10), scores=[0.35]))
        assert tracker.update(frame((11, 10), scores=[0.35])).track_ids.tolist() == [1]

    def test_an_object_that_is_back_within_patience_keeps_its_id(self):
        for patience, gap, expected in ((1, 20, 1), (1, 30, 2), (2, 30, 1)):
            tracker = Tracker(rate=25, patience=patience)
            for number in range(10):
                tracker.update(frame((50, 50)), time=number / 25)
            for number in range(10, 10 + gap):
                tracker.update(frame(), time=number / 25)
            for number in range(10 + gap, 14 + gap):
                found = tracker.update(frame((50, 50)), time=number / 25)
            assert found.track_ids.tolist() == [expected]

    def test_patience_is_in_seconds_whatever_the_stride(self):
        for rate, times in ((25, np.arange(0, 30) / 25), (5, np.arange(0, 30, 5) / 25)):
            tracker = Tracker(rate=rate, patience=1)
            for time in times:
                tracker.update(frame((50, 50)), time=float(time))
            assert tracker.alive == {1}
            tracker.update(frame(), time=float(times[-1]) + 0.9)
            assert tracker.alive == {1}
            tracker.update(frame(), time=float(times[-1]) + 1.3)
            assert tracker.alive == set()

    def test_classes_are_kept_apart(self):
        tracker = Tracker(rate=25)
        for _ in range(3):
            found = tracker.update(frame((10, 10), (10, 10), labels=[0, 3]))
        assert sorted(zip(found.track_ids.tolist(), found.labels.tolist(), strict=True)) == [(1, 0), (2, 3)]
        found = tracker.update(frame((10, 10), labels=[3]))
        assert found.track_ids.tolist() == [2]

    def test_a_track_may_begin_from_a_quarter_on_unless_asked_otherwise(self):
        tracker = Tracker(rate=25)
        for _ in range(2):
            found = tracker.update(frame((10, 10), (100, 10), scores=[0.26, 0.24]))
        assert found.boxes[:, 0].tolist() == [10]

    def test_without_times_frames_follow_at_the_rate(self):
        tracker = Tracker(rate=10, patience=1)
        for _ in range(3):
            tracker.update(frame((50, 50)))
        alive = []
        for _ in range(14):
            tracker.update(frame())
            alive.append(tracker.alive == {1})
        assert all(alive[:9]) and not any(alive[11:])

    def test_a_video_may_begin_at_any_time(self):
        tracker = Tracker(rate=25)
        tracker.update(frame((10, 10)), time=5.0)
        assert tracker.update(frame((10, 10)), time=5.04).track_ids.tolist() == [1]

    @pytest.mark.filterwarnings("error")
    def test_times_that_are_missing_or_jump_back_are_no_trouble(self):
        tracker = Tracker(rate=25)
        for time in (5.0, 5.04, 5.04, 0.0, 0.04, None, 5.5):
            found = tracker.update(frame((10, 10)), time=time)
        assert found.track_ids.tolist() == [1]

    def test_the_same_detections_give_the_same_tracks(self):
        def run():
            random = np.random.default_rng(0)
            tracker = Tracker(rate=25)
            rows = []
            for _ in range(60):
                found = tracker.update(frame(*random.uniform(0, 200, (12, 2)), scores=random.uniform(0, 1, 12)))
                rows.append((found.track_ids.tolist(), found.boxes.tolist()))
            return rows

        assert run() == run()

    def test_an_empty_video_has_no_tracks(self):
        assert [len(Tracker(rate=25).update(frame())) for _ in range(3)] == [0, 0, 0]
