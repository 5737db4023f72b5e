import time

from detr.runtime import progress


def test_what_takes_long_is_told_once_and_what_does_not_is_not(monkeypatch, capfd):
    monkeypatch.setattr(progress, "_SILENT", 0.01)
    said = ""
    with progress.told_if_long("reading my-data"):
        while not said.endswith("\n"):
            said += capfd.readouterr().err
    assert said == "reading my-data ...\n"
    with progress.told_if_long("reading my-data", quiet=True):
        time.sleep(0.1)
    monkeypatch.setattr(progress, "_SILENT", 0.1)
    with progress.told_if_long("reading my-data"):
        pass
    time.sleep(0.2)
    assert capfd.readouterr().err == ""
