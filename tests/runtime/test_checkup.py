import configparser
import importlib.metadata
from pathlib import Path

import pytest

from detr.runtime import checkup as module
from detr.runtime.checkup import EXTRAS, checkup


@pytest.fixture
def lacking(monkeypatch):
    """Packages that are not installed."""
    missing = {"timm", "triton", "opencv-python"}
    version = importlib.metadata.version

    def without(name):
        if name in missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3" if name == "opencv-python-headless" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)


def test_what_is_missing_comes_with_the_line_to_type(lacking):
    lines = {line.about: line for line in checkup()}
    assert lines["extra timm"].value == "timm -"
    assert lines["extra timm"].advice == "for more: pip install 'detr-toolkit[timm]'"
    assert lines["Triton"].value.startswith("not installed") and lines["opencv-python"].value == "1.2.3"
    assert lines["torch"].advice == ""


def test_little_room_is_said(monkeypatch):
    usage = type("Usage", (), {"free": 1e8})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    lines = {line.about: line for line in checkup()}
    assert lines["working directory"].advice == "little room for checkpoints"


def test_the_extras_are_those_that_can_be_installed():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert set(EXTRAS) == set(setup["options.extras_require"]) - {"test", "docs"}
    for extra, packages in EXTRAS.items():
        for name in packages:
            assert name in setup["options.extras_require"][extra]
