"""One training of a search, in a process of its own: what goes wrong in it, memory too, stays there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from detr.errors import InputError, UsageError
from detr.training.saved.checkpoint import RESUME
from detr.training.told.journal import read

_LOOK_EVERY = 0.2  # seconds
_LONGEST_GOODBYE = 120.0  # seconds to finish a step and save


class TrainingProcess:
    """`detr train WORDS --project PROJECT --name NAME`, from when it is made until it has ended or is stopped."""

    def __init__(self, words: Sequence[str], *, project: Path, name: str) -> None:
        self.folder, self.log = project / "train" / name, project / f"{name}.log"
        project.mkdir(parents=True, exist_ok=True)
        place = ["--project", str(project), "--name", name, "--overwrite"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "detr", "train", *words, *place],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def epochs(self) -> Iterator[tuple[int, float]]:
        """(epoch, AP) as they are evaluated. InputError, UsageError with what it said if it fails."""
        told = 0
        while True:
            ended = self._process.poll() is not None
            rows = [row for row in read(self.folder / "metrics.jsonl") if row["event"] == "epoch"]
            known = [(row["epoch"], row["AP"]) for row in rows if row.get("AP") is not None]
            yield from known[told:]
            told = len(known)
            if ended:
                break
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
                self._process.wait()
        for state in self.folder.glob(f"{Path(RESUME).stem}*"):
            state.unlink(missing_ok=True)

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("error: ") if lines else f"it left with code {self._process.returncode}"
        return f"{said} (all it said: {self.log})"
