import importlib.metadata
import sys

import pytest

from detr.runtime import checkup as module
from detr.runtime.checkup import checkup


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


def test_an_opencv_that_lacks_libraries_of_the_system_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "detr.opencv", raising=False)
    lines = {line.about: line for line in checkup()}
    assert "OpenCV can't be loaded" in lines["opencv-python"].advice
    assert "pip install --force-reinstall --no-deps opencv-python-headless" in lines["opencv-python"].advice
