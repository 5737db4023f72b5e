import os

import pytest
import torch

from detr import weights
from detr.classes import Classes
from detr.errors import InputError, UsageError
from detr.training.saved.checkpoint import RESUME
from detr.training.saved.generations import DAMAGED, NEXT, PREVIOUS, forget, newest, put_down, set_damaged_aside


def saved(number):
    """Writes a state after `number` steps."""

    def write(path):
        about = {"resume": {"step": number}, "recipe": {}}
        tensors = {"network.a": torch.full((50,), float(number))}
        weights.write(path, tensors, model={}, classes=Classes((1,), ("cat",)), metadata=about)

    return write


def two_states(folder):
    for number in (1, 2):
        put_down(folder, saved(number))


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def step_of(folder):
    """Of the state that would be gone on from, and what was said."""
    said = []
    state = newest(folder, said.append)
    assert float(state.tensors["network.a"][0]) == state.counters.step
    return state.counters.step, said


def test_the_newest_is_taken_and_the_one_before_is_kept(tmp_path):
    for number in range(1, 4):
        put_down(tmp_path, saved(number))
        assert step_of(tmp_path) == (number, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, RESUME]
    (tmp_path / RESUME).unlink()
    assert step_of(tmp_path) == (2, [])


def test_a_damaged_one_is_named_and_the_one_before_is_taken(tmp_path):
    two_states(tmp_path)
    cut(tmp_path / RESUME)
    step, (line,) = step_of(tmp_path)
    assert step == 1
    assert line.startswith(f"warning: {tmp_path / RESUME} is damaged or cut short")
    assert line.endswith(f"going on from the state before, {PREVIOUS}")


def test_a_damaged_one_never_pushes_the_whole_one_out(tmp_path):
    two_states(tmp_path)
    cut(tmp_path / RESUME)
    set_damaged_aside(tmp_path, newest(tmp_path, lambda line: None))
    assert (tmp_path / DAMAGED).is_file() and not (tmp_path / RESUME).exists()
    put_down(tmp_path, saved(2))
    assert step_of(tmp_path) == (2, [])
    (tmp_path / RESUME).unlink()
    assert step_of(tmp_path) == (1, [])


def test_where_both_are_damaged_both_are_named(tmp_path):
    two_states(tmp_path)
    for name in (RESUME, PREVIOUS):
        cut(tmp_path / name)
    with pytest.raises(InputError, match=rf"{RESUME} .*{PREVIOUS} .*no whole state is left"):
        newest(tmp_path, print)


def test_what_fails_while_writing_leaves_the_one_before(tmp_path):
    put_down(tmp_path, saved(1))

    def fail(path):
        saved(2)(path)
        raise InputError("no room")

    with pytest.raises(InputError, match="no room"):
        put_down(tmp_path, fail)
    assert step_of(tmp_path) == (1, [])


def test_a_disk_that_gives_back_something_else_is_noticed_before_the_old_one_goes(tmp_path):
    put_down(tmp_path, saved(1))

    def flipped(path):
        saved(2)(path)
        content = bytearray(path.read_bytes())
        content[-7] ^= 1
        path.write_bytes(content)

    with pytest.raises(InputError, match=NEXT):
        put_down(tmp_path, flipped)
    assert step_of(tmp_path) == (1, [])


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_between_the_renames_a_whole_one_is_there(tmp_path, monkeypatch, renames):
    class Killed(BaseException):
        pass

    left = [renames]

    def replace(source, target, original=os.replace):
        if ".part" not in str(source):  # the writer's own renaming is not meant
            if not left[0]:
                raise Killed
            left[0] -= 1
        original(source, target)

    two_states(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "replace", replace)
        put_down(tmp_path, saved(3))
    assert step_of(tmp_path) == (2, [])
    put_down(tmp_path, saved(3))
    assert step_of(tmp_path) == (3, [])


def test_what_is_forgotten_is_gone(tmp_path):
    two_states(tmp_path)
    (tmp_path / "best.safetensors").write_text("stays")
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_a_folder_without_a_state_says_so(tmp_path):
    with pytest.raises(UsageError, match="no such run folder"):
        newest(tmp_path / "nowhere", print)
    with pytest.raises(UsageError, match="nothing to go on from"):
        newest(tmp_path, print)
