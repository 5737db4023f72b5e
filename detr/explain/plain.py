"""An explanation as plain numbers, for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from detr.explain.levels import Level
from detr.explain.records import Explanation, Points, Proposal, Sides


def as_plain(explanation: Explanation) -> dict[str, Any]:
    """All of its numbers: pixels of the picture with two decimals, weights and scores with six.

    Of deformable attention the points say everything; of dense attention there are the weights themselves, by layer,
    head, row and column.
    """
    height, width = explanation.image.shape[:2]
    plain: dict[str, Any] = {
        "label": explanation.label,
        "name": explanation.name,
        "score": round(explanation.score, 6),
        "box": _pixels(explanation.box),
        "query": explanation.query,
        "levels": [_level(level, height, width) for level in explanation.levels],
        "layers": [
            {"box": _pixels(step.box), "score": None if step.score is None else round(step.score, 6)}
            for step in explanation.steps
        ],
        "start": _pixels(explanation.start),
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
        "score": round(proposal.score, 6),
        "label": proposal.label,
        "box": _pixels(proposal.box),
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


def _pixels(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else [round(float(value), 2) for value in values]
