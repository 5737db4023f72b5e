import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detr.errors import NotWritten, UsageError
from detr.training.saved.occupied import LOCK, occupied

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there nothing is locked")

HOLDER = """
import sys, time
from pathlib import Path
from detr.training.saved.occupied import occupied
with occupied(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_where_a_training_is_at_work_is_refused_until_that_is_killed(tmp_path, holder):
    with pytest.raises(UsageError, match=rf"a training is at work there \(process {holder.pid}\)"), occupied(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with occupied(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_can_be_written_no_more_does_not_hide_what_ended_the_training(tmp_path, monkeypatch):
    def refused(path, missing_ok):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with pytest.raises(NotWritten, match="the disk is full"), occupied(tmp_path):
        monkeypatch.setattr(Path, "unlink", refused)
        raise NotWritten("the disk is full")


def test_half_files_go_and_whole_ones_stay(tmp_path):
    half = [".resume-0a1b2c3d.part.safetensors", ".recipe-00000000.part.yaml", ".tmpAb3dEf"]
    whole = ["resume.safetensors", "resume.next.safetensors", ".hidden", "metrics.jsonl", "tmpAb3dEf"]
    for name in half + whole:
        (tmp_path / name).write_text("x")
    with occupied(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(whole)


def test_where_locks_are_unknown_nothing_is_locked_and_nothing_removed(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    (tmp_path / ".a-00000000.part.txt").write_text("x")
    with occupied(tmp_path):
        pass
    assert (tmp_path / ".a-00000000.part.txt").exists()
