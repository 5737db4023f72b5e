import pytest

from detr.errors import UsageError
from detr.training.saved import pace as pacing
from detr.training.saved.pace import Pace, pace


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("text", "seconds", "steps"),
    [
        ("10m", 600, None),
        ("90s", 90, None),
        ("2h", 7200, None),
        ("200", None, 200),
        (" 5 ", None, 5),
        ("0", None, None),
    ],
)
def test_words_become_a_pace(text, seconds, steps):
    found = pace(text)
    assert (found.seconds, found.steps) == (seconds, steps)


@pytest.mark.parametrize("text", ["", "often", "-5", "1.5m", "10 m", "3d", "m"])
def test_other_words_are_refused(text):
    with pytest.raises(UsageError, match=f"--save-every {text}: expected a time such as 10m"):
        pace(text)


def test_steps_are_counted_from_the_last_time():
    every_third = Pace(steps=3)
    assert [step for step in range(1, 5) if every_third.is_due(step)] == [3, 4]
    every_third.saved(4)
    assert [step for step in range(5, 9) if every_third.is_due(step)] == [7, 8]


def test_time_is_counted_from_the_last_time(clock):
    every_minute = Pace(seconds=60)
    every_minute.saved(0)
    clock.now += 59
    assert not every_minute.is_due(1)
    clock.now += 1
    assert every_minute.is_due(2)
    every_minute.saved(2)
    assert not every_minute.is_due(3)


def test_without_either_it_is_never_due(clock):
    never = Pace()
    clock.now += 1e9
    assert not never.is_due(10**9)


def test_a_state_is_older_where_time_passed_and_a_step_was_taken(clock):
    pace = Pace()
    pace.saved(3)
    assert not pace.is_older_than(60, 4)
    clock.now += 60
    assert pace.is_older_than(60, 4) and not pace.is_older_than(60, 3)
