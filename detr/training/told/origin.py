"""What it takes to repeat a run, besides its recipe: command, data, versions, machine, the state of the user's code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from detr.files import write_text
from detr.runtime.checkup import checkup

FILE = "origin.jsonl"


def tell_origin(
    folder: Path, *, since_step: int, data: str | None, seed: int, circumstances: Mapping[str, Any]
) -> None:
    """Add a line to `origin.jsonl` in a run's folder: one for each time that the run was begun or gone on with."""
    path = folder / FILE
    before = path.read_text(encoding="utf-8") if since_step and path.is_file() else ""
    line = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "since_step": since_step,
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "data": data,
        **circumstances,
        "seed": seed,
        "machine": {fact.about: fact.value for fact in checkup()},
        "git": git_state(Path.cwd()),
    }
    write_text(path, before + json.dumps(line, ensure_ascii=False) + "\n")


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that `folder` stands on and the files that differ from it; None outside of a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no") or ""
    return {"commit": commit.strip(), "changed": [line[3:] for line in changed.splitlines()]}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
