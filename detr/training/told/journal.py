"""The diary of a training run: `metrics.jsonl` with all, `metrics.csv` with a row per epoch; others may read along."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detr.errors import InputError, NotWritten
from detr.extras import is_installed
from detr.files import disk_said, write_bytes, write_text
from detr.image_file import read_image
from detr.training.told.loggers import Tracker

Number = float | int | None
_BOARD = "tensorboard"  # the folder that it reads


class Journal:
    """Written as training goes, so a run that was killed has told everything up to then.

    A resumed run goes on in the same files: what was written after `since_step`, and of an epoch that was not counted
    among the finished `epochs`, is dropped first, as it happens again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        since_step: int = 0,
        epochs: int | None = None,
        tensorboard: bool = True,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.folder = folder
        self.lines = folder / "metrics.jsonl"
        self.sheet = folder / "metrics.csv"
        kept = [row for row in read(self.lines) if row["step"] <= since_step] if since_step else []
        if epochs is not None:
            kept = [row for row in kept if row["event"] != "epoch" or row["epoch"] <= epochs]
        write_text(self.lines, "".join(json.dumps(row) + "\n" for row in kept))
        self.epochs = [row for row in kept if row["event"] == "epoch"]
        self.board = _tensorboard(folder) if tensorboard else None
        self.trackers = trackers
        self._write_sheet()

    def step(self, step: int, epoch: float, values: Mapping[str, Number]) -> None:
        self._add({"event": "step", "step": step, "epoch": round(epoch, 4), **_finite(values)})

    def epoch(self, step: int, epoch: int, values: Mapping[str, Number]) -> None:
        self._add(row := {"event": "epoch", "step": step, "epoch": epoch, **_finite(values)})
        self.epochs.append(row)
        self._write_sheet()

    def skipped(self, step: int, about: Mapping[str, Any]) -> None:
        """A step that was left out."""
        self._add({"event": "skipped", "step": step, **about})

    def picture(self, name: str, path: Path, step: int) -> None:
        """Show a picture of the run's folder to those who read along; they keep each one, the folder the newest."""
        if self.board is None and not self.trackers:
            return
        pixels = read_image(path)
        if self.board is not None:
            with self._to_board():
                self.board.add_image(name, pixels, step, dataformats="HWC")
        for tracker in self.trackers:
            tracker.picture(name, pixels, step)

    def write_anew(self) -> None:
        """What is known of the epochs, after the folder was removed: what was told of single steps went with it."""
        write_text(self.lines, "".join(json.dumps(row) + "\n" for row in self.epochs))
        self._write_sheet()
        if self.board is not None:
            self.board.close()
            self.board = _tensorboard(self.folder)

    def close(self) -> None:
        if self.board is not None:
            try:
                self.board.close()
            except OSError as problem:  # not raised: it would stand in place of what ended the training
                lost = "its last rows are lost, metrics.jsonl has them"
                warnings.warn(f"{self.folder / _BOARD}: {problem.strerror or problem}; {lost}", stacklevel=2)
        for tracker in self.trackers:
            tracker.close()

    def _add(self, row: dict[str, Any]) -> None:
        try:
            with self.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as problem:
            raise NotWritten(f"cannot write {self.lines}: {disk_said(problem)}") from None
        values = {
            f"{row['event']}/{name}": value
            for name, value in row.items()
            if isinstance(value, (int, float)) and name not in ("step", "epoch")
        }
        if self.board is not None:
            with self._to_board():
                for name, value in values.items():
                    self.board.add_scalar(name, value, row["step"])
        for tracker in self.trackers:
            tracker.numbers(values, row["step"])

    @contextmanager
    def _to_board(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise NotWritten(f"cannot write {self.folder / _BOARD}: {disk_said(problem)}") from None

    def _write_sheet(self) -> None:
        columns = list(dict.fromkeys(name for row in self.epochs for name in row if name != "event"))
        text = io.StringIO()
        sheet = csv.DictWriter(text, columns, extrasaction="ignore", restval="")
        sheet.writeheader()
        sheet.writerows(self.epochs)
        write_bytes(self.sheet, text.getvalue().encode())


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that was cut off in the middle is left out.

    InputError where another line is none of a journal.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None and number < len(lines):
            raise InputError(
                f"{path}:{number}: not a row that training wrote; put the file elsewhere to go on without it"
            )
        if row is not None:
            rows.append(row)
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"event", "step"} <= row.keys() else None


def _finite(values: Mapping[str, Number]) -> dict[str, Number]:
    """JSON knows no NaN: what could not be measured is null."""
    return {name: None if value is None or not math.isfinite(value) else value for name, value in values.items()}


def _tensorboard(folder: Path) -> Any:
    if not is_installed("tensorboard"):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / _BOARD))
