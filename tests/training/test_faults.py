"""What happens to a training when the disk, a file or another process fails: one line says it, and nothing is lost."""

import multiprocessing
import os
import random
import resource
import shutil
import signal

import pytest

from detr.errors import InputError, NotWritten
from detr.training import train as program
from detr.training.saved.checkpoint import RESUME
from detr.training.saved.generations import PREVIOUS, newest
from detr.training.saved.pace import Pace
from detr.training.train import train

pytestmark = [
    pytest.mark.usefixtures("plain"),
    pytest.mark.skipif(os.name == "nt", reason="limits and signals of other systems"),
]


def run(recipe, sets, out, workers=0, **options):
    return train(recipe, **sets, out=out, device="cpu", workers=workers, say=str, save_every=Pace(steps=1), **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Makes, once, the folder of a run of two epochs that nothing happened to."""
    known = []

    def folder(recipe, sets):
        if not known:
            known.append(tmp_path_factory.mktemp("saved"))
            run(recipe, sets, known[0])
        return known[0]

    return folder


@pytest.fixture
def whole(saved, recipe_with, small_sets):
    return saved(recipe_with(), small_sets)


@pytest.fixture
def room():
    """Sets how many bytes a file may have."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def during_step(monkeypatch, step, act):
    def acting(run, pieces, take_step=program.take_step):
        if run.counters.step == step - 1:
            act()
        return take_step(run, pieces)

    monkeypatch.setattr(program, "take_step", acting)


def cut(content, place, draw):
    return content[:place]


def flipped(content, place, draw):
    return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]


def without_its_end(content, place, draw):
    """As some file systems leave it when the power fails."""
    return content[:place].ljust(len(content), b"\0")


@pytest.mark.parametrize(("damage", "places"), [(cut, 50), (flipped, 20), (without_its_end, 10)])
def test_a_state_damaged_anywhere_is_refused_by_name_and_the_one_before_is_taken(whole, tmp_path, damage, places):
    draw = random.Random(0)
    content = (whole / RESUME).read_bytes()
    shutil.copy(whole / PREVIOUS, tmp_path / PREVIOUS)
    before = newest(tmp_path, pytest.fail).counters
    for place in [0, 7, 8, *(draw.randrange(len(content)) for _ in range(places - 3))]:
        (tmp_path / RESUME).write_bytes(damage(content, place, draw))
        said = []
        state = newest(tmp_path, said.append)
        assert (state.path.name, state.counters) == (PREVIOUS, before), place
        (line,) = said
        assert str(tmp_path / RESUME) in line and "\n" not in line and line.endswith(PREVIOUS), place


def test_a_training_whose_newest_state_is_damaged_ends_in_the_same_bytes(
    recipe_with, small_sets, tmp_path, whole, stopped_after
):
    with stopped_after(4):
        run(recipe_with(), small_sets, tmp_path)
    (tmp_path / RESUME).write_bytes((tmp_path / RESUME).read_bytes()[:-1])
    said = []
    train(recipe_with(), **small_sets, out=tmp_path, device="cpu", workers=0, say=said.append, resume=True)
    assert any("damaged or cut short" in line and PREVIOUS in line for line in said)
    assert "going on after epoch 1 (3 steps)" in said
    assert (tmp_path / RESUME).read_bytes() == (whole / RESUME).read_bytes()


@pytest.mark.parametrize(("size", "file"), [(200_000, "resume.next.safetensors"), (1, "metrics.jsonl")])
def test_a_disk_that_fills_up_ends_the_training_in_one_line_and_loses_nothing(
    recipe_with, small_sets, tmp_path, whole, monkeypatch, room, size, file
):
    assert (whole / RESUME).stat().st_size > 200_000
    monkeypatch.setattr("detr.training.words.ROWS_EVERY", 1)
    with monkeypatch.context() as patched:
        during_step(patched, 5, lambda: room(size))
        with pytest.raises(InputError, match=rf"cannot write \S+{file}: larger than allowed") as refused:
            run(recipe_with(), small_sets, tmp_path)
    room(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert "\n" not in str(refused.value)
    way = f"the state saved before is whole: when that is mended, detr train --resume {tmp_path}"
    assert str(refused.value).endswith(way) and str(refused.value).count(way) == 1
    assert not [path.name for path in tmp_path.iterdir() if "part" in path.name or "tmp" in path.name]
    assert newest(tmp_path, pytest.fail).counters.step == 4
    run(recipe_with(), small_sets, tmp_path, resume=True)
    assert (tmp_path / RESUME).read_bytes() == (whole / RESUME).read_bytes()


def test_weights_that_find_no_room_say_how_to_go_on(recipe_with, small_sets, tmp_path, monkeypatch):
    def save_weights(path, *_, **__):
        raise NotWritten(f"cannot write {path.name}: the disk is full")

    monkeypatch.setattr("detr.training.saved.checkpoint.save_weights", save_weights)
    way = f"the state saved before is whole: when that is mended, detr train --resume {tmp_path}"
    with pytest.raises(InputError, match=f"^cannot write last.safetensors: the disk is full; {way}$"):
        run(recipe_with(), small_sets, tmp_path)


def test_a_loader_process_that_is_killed_loses_nothing(recipe_with, small_sets, tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patched:
        during_step(patched, 2, lambda: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL))
        with pytest.raises(InputError, match=r"loader process 1 of 1 \(pid \d+\) was ended by SIGKILL.*; saved after"):
            run(recipe_with(), small_sets, tmp_path, workers=1)
    run(recipe_with(), small_sets, tmp_path, resume=True)
    assert (tmp_path / RESUME).read_bytes() == (whole / RESUME).read_bytes()
