import io
import re
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore

from detr.runtime import distributed, roll_call
from detr.runtime.roll_call import RollCall


class StandsStill(HashStore):
    """A store that a process no longer gets to."""

    def set(self, key, value):
        raise RuntimeError


@pytest.fixture
def told(monkeypatch):
    """What is said in a block, once a line is; pytest's own capture loses what a thread says while it is read."""
    said = io.StringIO()
    monkeypatch.setattr(roll_call, "sys", SimpleNamespace(stderr=said))

    def until_said(within=20.0):
        until = time.monotonic() + within
        while time.monotonic() < until and not said.getvalue().endswith("\n"):
            time.sleep(0.01)
        return said.getvalue()

    return until_said


@pytest.fixture
def team():
    """Three beats are enough time for a machine that does much else."""
    with ExitStack() as held:
        store = HashStore()

        def join(rank, size=2, store=store):
            return held.enter_context(RollCall(rank, size, store, first=1.0, beat=0.1).held())

        yield join


def test_who_is_no_longer_heard_of_is_named(team, told):
    one, other = team(0), team(1)
    while not one._store.check(["detr-sign-of-1"]):
        time.sleep(0.01)
    other._closed.set()
    with one.waiting("step 8"):
        said = told()
    assert re.match(r"warning: process 1 of 2 has waited for others for \d s \(step 8\): process 2 \(pid ", said)
    assert "has not been heard of since" in said and "kill -CONT" in said


def test_who_never_came_is_named(team, told):
    with team(0, 3).waiting("the start"):
        said = told()
    assert "process 2 has not been heard of at all; process 3 has not been heard of at all" in said


def test_who_is_busy_is_named_by_the_first_that_waits(team, told):
    first, second, _ = (team(rank, 3) for rank in range(3))
    with first.waiting("its share is done"), second.waiting("its share is done"):
        said = told()
        time.sleep(0.1)
    assert said.count("\n") == 1
    assert "process 1 of 3" in said and "(its share is done): process 3 (pid " in said
    assert re.search(r"has been busy by itself for \d s", said)


def test_a_slow_step_of_all_is_not_blamed_on_one(team, told):
    first, second = team(0), team(1)
    with first.waiting("step 1"), second.waiting("step 1"), second.waiting("within it"):
        assert "all of them live and are at the same" in told()


def test_a_place_to_meet_that_does_not_answer_is_told(team, told):
    with team(0, store=StandsStill()).waiting("step 1"):
        assert "does not answer" in told()


def test_short_waits_are_not_told_and_nothing_is_left_running(team, told):
    with RollCall(0, 2, HashStore(), first=5.0, beat=0.01).held() as alone:
        for _ in range(5):
            with alone.waiting("step 1"):
                time.sleep(0.01)
        assert not told(within=0.1)
    assert not [thread for thread in threading.enumerate() if thread.name == "detr-roll-call"]


def test_what_all_gather_is_watched(team, told, monkeypatch):
    def never(shares, mine):
        shares[:] = [told()]

    monkeypatch.setattr(distributed._Present, "roll_call", team(0))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("torch.distributed.all_gather_object", never)
    assert "(its share is done): process 2 has not been heard of" in distributed.gathered(1, "its share is done")[0]
