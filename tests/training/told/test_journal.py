import csv
import errno
import json
import os

import pytest
from PIL import Image

from detr.errors import InputError
from detr.training.told.journal import Journal, read


def filled(folder, since_step=0, epochs=range(1, 4)):
    journal = Journal(folder, since_step=since_step, tensorboard=False)
    for epoch in epochs:
        journal.step(epoch * 10 - 5, epoch - 0.5, {"loss": 1 / epoch})
        journal.epoch(epoch * 10, epoch, {"loss": 1 / epoch, "AP": 0.1 * epoch})
    journal.close()
    return journal


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_lines_and_sheet_tell_the_same_epochs(tmp_path):
    filled(tmp_path)
    epochs = [row for row in read(tmp_path / "metrics.jsonl") if row["event"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert [float(row["AP"]) for row in rows_of(tmp_path / "metrics.csv")] == [row["AP"] for row in epochs]


def test_a_resumed_journal_drops_what_happens_again(tmp_path):
    filled(tmp_path)
    filled(tmp_path, since_step=20, epochs=[3])
    rows = read(tmp_path / "metrics.jsonl")
    assert [(row["event"], row["step"]) for row in rows] == [
        ("step", 5), ("epoch", 10), ("step", 15), ("epoch", 20), ("step", 25), ("epoch", 30),
    ]  # fmt: skip
    assert len(rows_of(tmp_path / "metrics.csv")) == 3


def test_an_epoch_that_was_not_counted_is_dropped(tmp_path):
    filled(tmp_path)
    Journal(tmp_path, since_step=30, epochs=2, tensorboard=False)
    rows = read(tmp_path / "metrics.jsonl")
    assert [(row["event"], row["step"]) for row in rows][-2:] == [("epoch", 20), ("step", 25)]
    assert len(rows_of(tmp_path / "metrics.csv")) == 2


def test_a_new_journal_starts_afresh(tmp_path):
    filled(tmp_path)
    filled(tmp_path, epochs=[1])
    assert len(read(tmp_path / "metrics.jsonl")) == 2


def test_epochs_without_evaluation_leave_their_cells_empty(tmp_path):
    journal = Journal(tmp_path, tensorboard=False)
    journal.epoch(10, 1, {"loss": 2.0})
    journal.epoch(20, 2, {"loss": 1.0, "AP": 0.5})
    assert [row["AP"] for row in rows_of(tmp_path / "metrics.csv")] == ["", "0.5"]


def test_what_is_not_finite_is_null(tmp_path):
    Journal(tmp_path, tensorboard=False).step(1, 0.1, {"gradient_norm": float("inf")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["gradient_norm"] is None


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    filled(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert [row["step"] for row in read(path)] == [5, 10, 15, 20, 25]


def test_tensorboard_gets_the_numbers_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (6, 4)).save(tmp_path / "samples.png")
    journal = Journal(tmp_path)
    journal.step(10, 0.5, {"loss": 2.0, "lr backbone": 0.25})
    journal.epoch(20, 1, {"loss": 1.0, "AP": 0.5})
    journal.picture("samples", tmp_path / "samples.png", 20)
    journal.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    told = {name: [(row.step, row.value) for row in board.Scalars(name)] for name in board.Tags()["scalars"]}
    assert told == {
        "step/loss": [(10, 2)], "step/lr backbone": [(10, 0.25)], "epoch/loss": [(20, 1)], "epoch/AP": [(20, 0.5)]
    }  # fmt: skip
    (picture,) = board.Images("samples")
    assert (picture.step, picture.width, picture.height) == (20, 6, 4)


class Full:
    """TensorBoard's writer on a disk that is full."""

    def add_scalar(self, *row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self):
        self.add_scalar()


def test_a_tensorboard_that_finds_no_room_is_named_and_its_end_hides_nothing(tmp_path):
    journal = Journal(tmp_path, tensorboard=False)
    journal.board = Full()
    with pytest.raises(InputError, match=r"^cannot write .*tensorboard: the disk is full$"):
        journal.step(1, 0.1, {"loss": 1.0})
    with pytest.warns(UserWarning, match=r"tensorboard: No space .*; its last rows are lost"):
        journal.close()


@pytest.mark.parametrize("line", [b"\xff\xfe\x00", b"[1, 2]", b'{"a": 1}', b"<<<<<<< HEAD", b""])
def test_a_journal_that_something_else_wrote_into_is_said_by_its_line(tmp_path, line):
    path, row = tmp_path / "metrics.jsonl", b'{"event": "step", "step": 1}'
    path.write_bytes(row + b"\n" + line + b"\n" + row + b"\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: not a row that training wrote; put the file elsewhere"):
        read(path)
    path.write_bytes(row + b"\n" + line)
    assert [each["step"] for each in read(path)] == [1]
