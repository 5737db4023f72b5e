import io
import signal
import sys
import time

import pytest

from detr.runtime.interruption import noticed


@pytest.fixture
def as_before():
    """As in a shell, also where the tests themselves were started with Ctrl-C ignored; afterwards as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_first_signal_is_noted_and_acts_when_asked(as_before):
    with noticed() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            interruption.act(signal.SIGINT)


def test_a_signal_that_several_senders_hand_on_is_one(as_before):
    with noticed() as interruption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.number == signal.SIGTERM


def test_second_signal_acts_at_once(as_before, monkeypatch):
    with noticed():
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr("detr.runtime.interruption._SAME", -1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ignored_signal_stays_ignored(as_before):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with noticed() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.number == 0
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_handlers_are_as_they_were(as_before):
    before = signal.getsignal(signal.SIGTERM)
    with noticed():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_signal_waits_for_is_told_after_some_seconds(as_before, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr("detr.runtime.interruption._TELL_AFTER", 0.01)
    until = time.monotonic() + 30
    with noticed():
        time.sleep(0.1)
        assert said.getvalue() == ""
        signal.raise_signal(signal.SIGTERM)
        while not said.getvalue().endswith("\n") and time.monotonic() < until:
            time.sleep(0.01)
    assert said.getvalue() == (
        "the step under way is finished, and the state saved; the same signal again ends at once\n"
    )
