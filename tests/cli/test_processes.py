import os
import signal
import threading
import time

import pytest

from detr.cli import processes
from detr.cli.processes import attended

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of other systems")

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
begun = Path(sys.argv[1], os.environ["RANK"]).touch
ask = lambda what: signal.signal(signal.SIGTERM, what)
stand_still = lambda: os.kill(os.getpid(), signal.SIGSTOP)
if os.environ["RANK"] == "0":
    {}
else:
    {}
"""
HEEDS = "ask(lambda *_: sys.exit(143)); begun(); time.sleep(60)"
IGNORES = "ask(signal.SIG_IGN); begun(); time.sleep(60)"
STOPPED = "ask(lambda *_: sys.exit(143)); begun(); stand_still(); time.sleep(60)"


@pytest.fixture
def team(tmp_path, monkeypatch):
    """Runs two processes; what is said to this one when both have begun is a number of SIGTERMs -> its exit code."""
    for name, seconds in (("_OWN_WORDS", 0.1), ("_ALONE", 0.3), ("_HURRY", 0.3), ("_SAME", 0.0), ("_TELL_AFTER", 0.1)):
        monkeypatch.setattr(processes, name, seconds)

    def run(first, second, signals=0, patience=30.0):
        def wait():
            until = time.monotonic() + 30
            while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
                time.sleep(0.01)
            for _ in range(signals):
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGTERM)

        sender = threading.Thread(target=wait)
        if signals:
            sender.start()
        words = ["-c", PROGRAM.format(first, second), str(tmp_path)]
        began = time.monotonic()
        try:
            code = attended(words, [{"RANK": "0"}, {"RANK": "1"}], patience=patience)
        finally:
            if signals:
                sender.join()
        assert time.monotonic() - began < 25
        return code

    return run


def test_all_that_succeed_leave_with_0(team):
    assert team("pass", "pass") == 0


@pytest.mark.parametrize("other", [HEEDS, IGNORES])
def test_the_code_is_that_of_the_one_that_failed_and_the_others_are_ended(team, other):
    assert team(other, "sys.exit(3)") == 3


def test_a_process_that_the_system_kills_gives_the_code_of_a_shell(team):
    assert team("os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(60)") == 137


def test_wrong_usage_goes_before_what_came_of_it(team, monkeypatch):
    monkeypatch.setattr(processes, "_OWN_WORDS", 20)
    assert team("sys.exit(1)", "time.sleep(0.5); sys.exit(2)") == 2
    assert team("time.sleep(0.5); sys.exit(1)", "sys.exit(3)") == 3


def test_a_signal_is_handed_on_and_wakes_who_stands_still(team, capfd):
    assert team(HEEDS, STOPPED, signals=1) == 143
    assert "killed" not in capfd.readouterr().err


def test_who_heeds_no_signal_is_killed_when_patience_ends_and_that_is_said(team, capfd):
    assert team(HEEDS, IGNORES, signals=1, patience=0.5) == 143
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith(
        "1 of 2 processes finish what they are at and save, for 0 s at most; the same signal again"
    )
    assert said[1].startswith("warning: process 2 of 2 (pid ") and said[1].endswith("what it saved before stays")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="states of processes are found through /proc")
def test_what_is_stopped_by_hand_stops_and_goes_on_together(monkeypatch):
    process = processes._start(["-c", "import time; time.sleep(60)"], {})

    def state():
        with open(f"/proc/{process.pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(") ", 1)[1][0]

    def until(expected):
        end = time.monotonic() + 30
        while (state() == "T") != expected:
            assert time.monotonic() < end
            time.sleep(0.01)

    stopped = []
    with monkeypatch.context() as patched, processes._stopped_together([process]):
        patched.setattr(processes.os, "kill", lambda pid, number: (stopped.append((pid, number)), until(True)))
        signal.raise_signal(signal.SIGTSTP)
    until(False)
    assert stopped == [(os.getpid(), signal.SIGSTOP)]
    processes._end([process])


def test_a_second_signal_ends_all_at_once(team):
    assert team(IGNORES, IGNORES, signals=2) == 143


def test_signals_do_afterwards_what_they_did_before(team):
    before = signal.getsignal(signal.SIGTERM)
    assert team("pass", "pass") == 0 and signal.getsignal(signal.SIGTERM) is before
