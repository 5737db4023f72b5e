"""ByteTrack (Zhang et al. 2022), by the library `trackers`: detections frame after frame -> ids that stay."""

from __future__ import annotations

import numpy as np
import torch

from detr.extras import require
from detr.records import Detections

_CLASS_STEP = 1e5  # pixels, wider than any picture


class Tracker:
    """Follows the objects of one video.

    An object gets its id, from 1 up, when it is found in two successive frames; what has none is left out. Classes are
    kept apart: a track has one class from beginning to end, and an object that the detector takes for a car now and for
    a truck then has two tracks.
    """

    def __init__(self, *, rate: float, conf: float = 0.25, patience: float = 1.0) -> None:
        """rate: frames per second that `update` is to see. conf: a score from which on a new track may begin; weaker
        detections only keep tracks going, and are the better for it (section 3 of the paper). patience: seconds after
        which an object that is not found again is given up. UsageError where the library is missing.
        """
        require("track", "tracking")
        from trackers import ByteTrackTracker

        self._interval = 1 / rate
        self._time: float | None = None
        self._inner = ByteTrackTracker(
            frame_rate=rate,
            lost_track_buffer=round(30 * patience),  # in frames of 1/30 second, whatever the rate
            track_activation_threshold=conf,
            high_conf_det_threshold=conf,
        )

    @property
    def alive(self) -> set[int]:
        """The ids that may still come up."""
        return {int(track.tracker_id) + 1 for track in self._inner.tracks if track.tracker_id >= 0}

    def update(self, found: Detections, *, time: float | None = None) -> Detections:
        """The detections of the next frame that belong to a track, with their ids, in their order.

        `found` has the weak ones too. time: seconds; where it is missing, or doesn't go on, a frame is taken to follow
        the last at the rate.
        """
        import supervision

        last = self._time
        if last is None:
            self._time = time or 0.0
        else:
            self._time = time if time is not None and time > last else last + self._interval
        # Far apart, boxes of different classes have no overlap, so that one assignment serves all classes.
        boxes = found.boxes.double().numpy() + _CLASS_STEP * found.labels.double().numpy()[:, None] * (1, 0, 1, 0)
        given = supervision.Detections(
            xyxy=boxes.reshape(-1, 4),
            confidence=found.scores.double().numpy(),
            data={"row": np.arange(len(found))},
        )
        answer = self._inner.update(given, timestamp=self._time)
        ids = np.full(len(found), -1)
        if len(answer):
            ids[answer.data["row"]] = answer.tracker_id
        rows = torch.from_numpy(np.flatnonzero(ids >= 0))
        return Detections(found.boxes[rows], found.scores[rows], found.labels[rows], torch.from_numpy(ids)[rows] + 1)
