"""One training of a search, in a process of its own: what goes wrong in it, memory too, stays there.

It ends with the process that began it, however that ended.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from detr.errors import InputError, UsageError
from detr.runtime.tied import GOODBYE
from detr.training.saved.checkpoint import RESUME
from detr.training.told.journal import read

_LOOK_EVERY = 0.2  # seconds
_LONGEST_SILENCE = 7200.0  # seconds in which nothing is written: neither a step, nor an epoch, nor a word
_LONGEST_GOODBYE = GOODBYE + 10


class TrainingProcess:
    """`detr train WORDS --project PROJECT --name NAME`, from when it is made until it has ended or is stopped."""

    def __init__(self, words: Sequence[str], *, project: Path, name: str) -> None:
        self.folder, self.log = project / "train" / name, project / f"{name}.log"
        project.mkdir(parents=True, exist_ok=True)
        place = ["--project", str(project), "--name", name, "--overwrite"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "detr.runtime.tied", "train", *words, *place],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def epochs(self) -> Iterator[tuple[int, float]]:
        """(epoch, AP) as they are evaluated. InputError, UsageError with what it said if it fails or stands still."""
        told, wrote, since = 0, 0, time.monotonic()
        while True:
            ended = self._process.poll() is not None
            rows = [row for row in read(self.folder / "metrics.jsonl") if row["event"] == "epoch"]
            known = [(row["epoch"], row["AP"]) for row in rows if row.get("AP") is not None]
            yield from known[told:]
            told = len(known)
            if ended:
                self._let_go()
                break
            if (written := self._written()) != wrote:
                wrote, since = written, time.monotonic()
            elif time.monotonic() - since > _LONGEST_SILENCE:
                raise InputError(f"it stood still for {_LONGEST_SILENCE / 60:.0f} minutes: {self._last_words()}")
            time.sleep(_LOOK_EVERY)
        if self._process.returncode:
            raise (UsageError if self._process.returncode == 2 else InputError)(self._last_words())

    def stop(self) -> None:
        """End it, if it hasn't ended by itself; what can't be gone on with anyway, its states, is removed."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_LONGEST_GOODBYE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                with suppress(subprocess.TimeoutExpired):  # one that a disk holds can't be ended, nor waited for
                    self._process.wait(_LONGEST_GOODBYE)
        self._let_go()
        for state in self.folder.glob(f"{Path(RESUME).stem}*"):
            state.unlink(missing_ok=True)

    def _let_go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _written(self) -> int:
        """Bytes that it has told so far."""
        files = (self.log, self.folder / "metrics.jsonl")
        return sum(file.stat().st_size for file in files if file.exists())

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        code = self._process.returncode
        nothing = "it said nothing" if code is None else f"it left with code {code}"
        said = lines[-1].removeprefix("error: ") if lines else nothing
        return f"{said} (all it said: {self.log})"
