import weakref

import numpy as np
import torch

from detr.errors import InputError
from detr.serve.batching import Batcher, prepared_alone
from detr.video import Frame, Source


class Small:
    """Has memory for one picture at a time, and none while that of a pass before is still held."""

    def __init__(self, detector):
        self.detector, self.before = detector, None

    def detect(self, group, settings):
        assert self.before is None or self.before() is None, "the memory of the pass that failed is held"
        if len(group) > 1:
            activations = torch.zeros(8)
            self.before = weakref.ref(activations)
            raise torch.OutOfMemoryError
        return self.detector.detect(group, settings)


def test_pictures_that_are_too_much_together_are_looked_at_one_by_one_in_the_memory_that_this_frees(detector):
    told = []
    batcher = Batcher(Small(detector), most=2, wait=20, tell=lambda *batch: told.append(batch))
    settings = detector.settings(conf=0)
    frames = [Frame(np.full((30, 40, 3), value, np.uint8), Source("image", "a")) for value in (0, 200)]
    futures = [batcher.look(prepared_alone(frame, settings), settings) for frame in frames]
    assert all(len(future.result(20).boxes) for future in futures)
    batcher.close()
    ((size, seconds),) = told
    assert size == 2 and 0 < seconds < 60


def test_what_goes_wrong_with_a_picture_alone_is_its_answer(detector):
    class Broken:
        def detect(self, group, settings):
            raise InputError("answers with NaN")

    batcher, settings = Batcher(Broken(), most=2, wait=0), detector.settings()
    frame = Frame(np.zeros((30, 40, 3), np.uint8), Source("image", "a"))
    assert isinstance(batcher.look(prepared_alone(frame, settings), settings).exception(20), InputError)
    batcher.close()
