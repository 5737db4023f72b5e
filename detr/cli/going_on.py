"""Runs that `detr train` goes on with: with --resume, or because torchrun started it anew after it lost a process."""

from __future__ import annotations

import os
from pathlib import Path

from detr.errors import UsageError, did_you_mean

# As in detr.training.saved, which would load torch.
RECIPE, DATA = "recipe.yaml", "data.txt"
STATES = ("resume.safetensors", "resume.previous.safetensors")


def remembered(resume: Path | None) -> str | None:
    """The data set that the run to go on with was trained on. UsageError where no run is."""
    if resume is None:
        return None
    if not (resume / RECIPE).is_file():
        raise UsageError(f"--resume {resume}: no run is there ({RECIPE} is missing){_near(resume)}")
    return (resume / DATA).read_text(encoding="utf-8").strip() if (resume / DATA).is_file() else None


def _near(resume: Path) -> str:
    """The folder of a file of a run, or the run beside it that is called nearly so."""
    if (resume.parent / RECIPE).is_file():
        return f"; did you mean {str(resume.parent)!r}?"
    return did_you_mean(resume.name, (file.parent.name for file in resume.parent.glob(f"*/{RECIPE}")))


def may_start_again() -> bool:
    """Whether torchrun starts processes anew where it loses one."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def started_again(name: str, project: str) -> Path | None:
    """The folder of the run, if torchrun starts it anew because it lost a process."""
    is_anew = may_start_again() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return Path(project) / "train" / name if is_anew else None


def saved_before(run: Path | None) -> Path | None:
    return run if run is not None and any((run / name).is_file() for name in STATES) else None
