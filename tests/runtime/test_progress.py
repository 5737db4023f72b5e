import io
import sys
import time

from detr.runtime import progress


def test_what_takes_long_is_told_once_and_what_does_not_is_not(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(progress, "_SILENT", 0.01)
    until = time.monotonic() + 30
    with progress.told_if_long("reading my-data"):
        while not said.getvalue().endswith("\n") and time.monotonic() < until:
            time.sleep(0.01)
    assert said.getvalue() == "reading my-data ...\n"
    with progress.told_if_long("reading my-data", quiet=True):
        time.sleep(0.1)
    monkeypatch.setattr(progress, "_SILENT", 0.5)
    with progress.told_if_long("reading my-data"):
        pass
    time.sleep(0.6)
    assert said.getvalue() == "reading my-data ...\n"
