"""Files are whole or absent, and runs never lie in each other's way."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import stat
import threading
from pathlib import Path

import pytest

from detr.errors import InputError, UsageError
from detr.files import (
    folder_written_aside,
    home,
    kept_in,
    new_run,
    read_json,
    read_text,
    removed_if_empty,
    require_writable,
    shipped,
    write_text,
    written_aside,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_byte_order_mark_is_no_harm(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"é": 1}', encoding="utf-8-sig")
    assert read_json(path) == {"é": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1\xff]", r"a\.json: not text in UTF-8 \(byte 2\)$"),
        (b'{"a": 1,\n "b" 2}', r"a\.json:2:6: not valid JSON: Expecting ':' delimiter$"),
        (b"[" * 200_000, r"a\.json: JSON nested too deeply$"),
        (b"1" * 5_000, r"a\.json: not valid JSON: Exceeds the limit .*"),
    ],
)
def test_a_file_that_is_no_json_is_said_in_a_line(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_json(tmp_path / "a.json")


def test_a_file_that_cannot_be_read_is_said_in_a_line(tmp_path):
    (tmp_path / "file").touch()
    for absent in (tmp_path / "absent", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=f"^{re.escape(str(absent))}: no such file$"):
            read_text(absent)
    with pytest.raises(InputError, match=r"^cannot read .*: Is a directory$"):
        read_text(tmp_path)


def test_a_file_appears_when_its_block_ends_well(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    with written_aside(path) as aside:
        aside.write_text("{}")
        assert not path.exists()
        assert aside.parent == path.parent and aside.suffix == ".json"
    assert path.read_text() == "{}"
    assert names_in(path.parent) == ["a.json"]


def test_who_has_neither_name_nor_home_can_ask_what_is_kept(monkeypatch):
    for name in ("HOME", "DETR_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_011)
    assert home() == Path("/.cache/detr")


def test_where_nothing_can_be_kept_the_way_out_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DETR_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write to .*file/weights: Not a directory; set DETR_HOME to a folder"):
        kept_in("weights")
    monkeypatch.setenv("DETR_HOME", str(tmp_path / "new"))
    assert kept_in("weights") == tmp_path / "new" / "weights" and (tmp_path / "new" / "weights").is_dir()


def test_bytes_that_are_no_utf8_are_written_as_json_reads_them(tmp_path):
    write_text(tmp_path / "names.json", json.dumps(["\udcff.jpg"], ensure_ascii=False))
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == ["\udcff.jpg"]


@pytest.mark.parametrize("problem", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EPERM, "no")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, problem):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(problem)), written_aside(path) as aside:
        aside.write_text("half")
        raise problem
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "larger than allowed"),
        (errno.EIO, "failed"),
        (errno.EROFS, "read-only"),
    ],
)
def test_no_room_is_said_with_the_name_of_the_file(tmp_path, number, said):
    with pytest.raises(InputError, match=rf"cannot write .*a\.txt: .*{said}"), written_aside(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert names_in(tmp_path) == []


def test_a_full_disk_is_said():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(InputError, match="cannot write /dev/full: the disk is full"):
        write_text("/dev/full", "x")


@pytest.mark.parametrize("path", ["file.txt/below.txt", "x" * 300, "folder"])
def test_a_path_that_cannot_be_written_is_said(tmp_path, path):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*(not a folder|too long|is a folder)"):
        write_text(tmp_path / path, "x")
    assert names_in(tmp_path) == ["file.txt", "folder"]


def test_new_files_have_the_rights_that_the_user_chose(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_devices_and_pipes_are_written_to_and_stay_what_they_are(tmp_path):
    write_text("/dev/null", "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join(timeout=10)
    assert read == ["through"] and names_in(tmp_path) == ["pipe"]


def test_what_is_shipped_is_there():
    assert (shipped("configs") / "rtdetr-r18.yaml").is_file()


def test_runs_without_a_name_are_numbered(tmp_path):
    assert [new_run("train", project=tmp_path).name for _ in range(3)] == ["train", "train-2", "train-3"]


def test_runs_started_together_get_different_folders(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(new_run("val", project=tmp_path))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 12


def test_a_named_run_is_not_written_over_unless_allowed(tmp_path):
    folder = new_run("train", "mine", project=tmp_path)
    assert new_run("train", "mine", project=tmp_path) == folder  # nothing in it yet
    (folder / "last.safetensors").write_text("")
    with pytest.raises(UsageError, match="already holds a run; choose another --name"):
        new_run("train", "mine", project=tmp_path)
    assert new_run("train", "mine", project=tmp_path, overwrite=True) == folder


@pytest.mark.parametrize("name", ["", "  "])
def test_a_run_has_a_name_or_none(tmp_path, name):
    with pytest.raises(UsageError, match="empty"):
        new_run("train", name, project=tmp_path)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("../x", "x; the folder that holds the runs is --project"), ("a/b", "b;"), ("/abs/", "abs;"), ("a\\b", "b;"),
     ("..", "mine"), (".", "mine"), ("a:b", "a_b"), ("what?", "what_"), ("x.", "x"), (" x", "x"), ("a\n", "a_"),
     ("nul.txt", "my-nul.txt"), ("/", "mine;"), ("\udcff", "_")],
)  # fmt: skip
def test_a_run_is_one_folder_in_its_project_on_any_system(tmp_path, name, instead):
    with pytest.raises(UsageError, match="expected the name of a folder") as problem:
        new_run("train", name, project=tmp_path)
    assert f"such as {instead}" in str(problem.value) and names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["bccd 2026-11-21", ".kept", "größe_320", "v1.2", "console", "-x"])
def test_any_other_name_is_taken_as_it_is(tmp_path, name):
    assert new_run("train", name, project=tmp_path).name == name


def test_a_file_in_the_way_of_a_run_is_said(tmp_path):
    (tmp_path / "train").write_text("")
    for name in (None, "mine"):
        with pytest.raises(InputError, match="cannot write to"):
            new_run("train", name, project=tmp_path)


def _try_read_only(folder, answers):
    os.setuid(65534)
    try:
        require_writable(folder)
        answers.put("wrote")
    except InputError as problem:
        answers.put(str(problem))


def test_a_run_that_fails_before_it_wrote_anything_leaves_no_folder(tmp_path):
    for name in ("empty", "full"):
        with pytest.raises(KeyboardInterrupt), removed_if_empty(new_run("val", name, project=tmp_path)):
            if name == "full":
                write_text(tmp_path / "val" / name / "x", "x")
            raise KeyboardInterrupt
    assert names_in(tmp_path / "val") == ["full"]


def test_a_read_only_folder_is_found_before_the_work(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    if os.geteuid() != 0:
        with pytest.raises(InputError, match="Permission denied"):
            require_writable(folder)
        return
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    context = multiprocessing.get_context("fork")  # root may write everywhere: ask as nobody
    answers = context.SimpleQueue()
    child = context.Process(target=_try_read_only, args=(folder, answers))
    child.start()
    child.join()
    assert "cannot write to" in answers.get()


def test_a_folder_that_is_removed_while_a_file_is_written_is_said_by_the_files_own_name(tmp_path):
    path = tmp_path / "run" / "a.txt"
    said = r"^cannot write .*run.a\.txt: it, or its folder, was removed meanwhile$"
    with pytest.raises(InputError, match=said), written_aside(path) as aside:
        shutil.rmtree(path.parent)
        aside.write_text("late")
    with pytest.raises(FileNotFoundError, match="other"), written_aside(path):
        (tmp_path / "other").read_text()


def test_a_folder_written_aside_takes_its_place_whole_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "set"
    with pytest.raises(KeyboardInterrupt), folder_written_aside(out) as folder:
        (folder / "half").write_text("")
        raise KeyboardInterrupt
    assert list((tmp_path / "deep").iterdir()) == []
    out.mkdir()
    with folder_written_aside(out) as folder:
        assert folder.parent == out.parent and list(out.iterdir()) == []
        (folder / "file").write_text("x")
    assert [path.name for path in out.parent.iterdir()] == ["set"] and (out / "file").read_text() == "x"


def test_a_folder_that_holds_something_is_not_taken(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in ((tmp_path, "already holds something"), (tmp_path / "file", "is a file")):
        with pytest.raises(UsageError, match=message), folder_written_aside(path):
            raise AssertionError
    with pytest.raises(InputError, match="cannot write"), folder_written_aside(tmp_path / "file" / "set"):
        raise AssertionError


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    message = "cannot write .*set: the disk is full"
    with pytest.raises(InputError, match=message), folder_written_aside(tmp_path / "set") as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))
    assert list(tmp_path.iterdir()) == []
