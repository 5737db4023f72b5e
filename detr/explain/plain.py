"""An explanation as plain numbers, for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from detr.explain.levels import Level
from detr.explain.records import Explanation, Points, Proposal, Sides
from detr.json_shape import box_row, found_row


def as_plain(explanation: Explanation) -> dict[str, Any]:
    """All of its numbers: boxes and scores as `predict` tells them, points with two decimals, weights with six.

    Of deformable attention the points say everything; of dense attention there are the weights themselves, by layer,
    head, row and column.
    """
    height, width = explanation.image.shape[:2]
    plain: dict[str, Any] = {
        **found_row(explanation.name, explanation.label, explanation.score, explanation.box),
        "query": explanation.query,
        "levels": [_level(level, height, width) for level in explanation.levels],
        "layers": [
            {"box": _box(step.box), "confidence": None if step.score is None else round(step.score, 5)}
            for step in explanation.steps
        ],
        "start": _start(explanation.start),
        "proposal": None if explanation.proposal is None else _proposal(explanation.proposal),
    }
    if explanation.points is not None:
        plain["points"] = _points(explanation.points)
    else:
        (level,) = explanation.levels
        grid = explanation.weights.reshape(*explanation.weights.shape[:2], level.height, level.width)
        plain["attention"] = np.round(grid.astype(np.float64), 6).tolist()
    if explanation.sides is not None:
        plain["sides"] = _sides(explanation.sides)
    return plain


def _level(level: Level, height: int, width: int) -> dict[str, Any]:
    rows, columns = level.valid
    return {
        "height": level.height,
        "width": level.width,
        "rows_of_image": rows,
        "columns_of_image": columns,
        "cell": [round(width / columns, 3), round(height / rows, 3)],
    }


def _proposal(proposal: Proposal) -> dict[str, Any]:
    return {
        "rank": proposal.rank,
        "level": proposal.level,
        "row": proposal.row,
        "column": proposal.column,
        "xy": _pixels(proposal.xy),
        "class": proposal.label,
        "confidence": round(proposal.score, 5),
        "box": _box(proposal.box),
    }


def _points(points: Points) -> dict[str, Any]:
    return {
        "levels": list(points.levels),
        "xy": np.round(points.xy.astype(np.float64), 2).tolist(),
        "weights": np.round(points.weights.astype(np.float64), 6).tolist(),
    }


def _sides(sides: Sides) -> dict[str, Any]:
    return {
        "order": ["left", "top", "right", "bottom"],
        "positions": np.round(sides.positions.astype(np.float64), 2).tolist(),
        "probabilities": np.round(sides.probabilities.astype(np.float64), 6).tolist(),
        "expected": np.round(sides.expected.astype(np.float64), 2).tolist(),
        "spread": np.round(sides.spread.astype(np.float64), 3).tolist(),
        "interval": np.round(sides.interval.astype(np.float64), 2).tolist(),
    }


def _start(place: tuple[float, ...] | None) -> dict[str, float] | list[float] | None:
    """A box, or a point."""
    return _box(place) if place is None or len(place) == 4 else _pixels(place)


def _box(values: tuple[float, ...] | None) -> dict[str, float] | None:
    return None if values is None else box_row(values)


def _pixels(values: tuple[float, ...]) -> list[float]:
    return [round(float(value), 2) for value in values]
