"""What is packed: the sdist is the repository, and the wheel is the packages with their data, without a test."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ONLY_IN_A_CHECKOUT = {".gitignore"}
MADE = ("PKG-INFO", "detr_toolkit.egg-info/", "detr_toolkit-")


def without_made(names):
    return {name for name in names if not name.startswith(MADE)}


@pytest.fixture(scope="module")
def tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("only git knows which files are the repository's")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return {name for name in os.fsdecode(listed).split("\0") if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def packed(tracked, tmp_path_factory):
    """Sdist and wheel of a copy, which no earlier build has left anything in."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    program = f"from setuptools import build_meta as it; it.build_sdist({str(out)!r}); it.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, check=True)
    return out


def test_the_sdist_is_the_repository(packed, tracked):
    with tarfile.open(next(packed.glob("*.tar.gz"))) as file:
        names = {member.name.partition("/")[2] for member in file if member.isfile()}
    assert without_made(names) == tracked - ONLY_IN_A_CHECKOUT


def test_the_wheel_is_the_packages_with_their_data(packed, tracked):
    with zipfile.ZipFile(next(packed.glob("*.whl"))) as file:
        names = set(file.namelist())
    for_users = {name for name in tracked if not name.endswith(".md")}
    code = {name for name in for_users if name.startswith("detr/")}
    shipped = {f"detr/share/{name}" for name in for_users if name.startswith(("configs/", "weights/"))}
    assert without_made(names) == code | shipped
