import threading
import time

import pytest

from detr.patience import Patience


def test_a_long_wait_is_told_whenever_it_has_doubled_and_then_given_up_once():
    told, given_up = [], threading.Event()
    with Patience(first=0.02, longest=0.4, tell=told.append, give_up=given_up.set) as patience, patience.waiting():
        assert given_up.wait(20)
        before = len(told)
        time.sleep(0.05)
    assert len(told) == before and 2 <= before <= 5
    assert all(seconds >= 0.02 * 2**place for place, seconds in enumerate(told))


def test_short_waits_and_what_is_done_between_them_are_never_told():
    with Patience(first=0.5, longest=0, tell=lambda seconds: pytest.fail(), give_up=pytest.fail) as patience:
        for _ in range(8):
            with patience.waiting():
                time.sleep(0.01)
            time.sleep(0.08)
