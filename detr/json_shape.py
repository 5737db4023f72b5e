"""An object that was found as all of our JSON has it: the same names and units, whoever tells it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def found_row(name: str, label: int, confidence: float, box: Iterable[float], *, decimals: int = 5) -> dict[str, Any]:
    """`box`: x1, y1, x2, y2 in pixels of the picture, or shares of it."""
    row: dict[str, Any] = {"name": name, "class": label, "confidence": round(confidence, decimals)}
    return {**row, "box": box_row(box, decimals=decimals)}


def box_row(box: Iterable[float], *, decimals: int = 5) -> dict[str, float]:
    return {key: round(float(value), decimals) for key, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)}
