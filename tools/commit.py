"""Which commit a measurement is of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """`unknown` for a copy without its history, or without git."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    try:
        said = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:
        said = ""
    return said or "unknown"
