"""Charts: what a training run did, and what accuracy costs in time. Needs matplotlib, an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from detr.extras import is_installed
from detr.files import write_bytes

CURVES = {  # title -> columns of the epochs' rows
    "loss": ("loss",),
    "loss of the last decoder layer": (
        *("loss_ce", "loss_focal", "loss_vfl", "loss_mal"),
        *("loss_bbox", "loss_giou", "loss_fgl", "loss_ddf"),
    ),
    "AP": ("AP", "AP50", "AP75"),
    "AP by size": ("APs", "APm", "APl"),
    "learning rate": ("lr",),
    "seconds per epoch": ("train_seconds", "val_seconds"),
}


_LABELS = {"train_seconds": "training", "val_seconds": "evaluation", "APs": "small", "APm": "medium", "APl": "large"}


def available() -> bool:
    return is_installed("matplotlib")


def draw_results(epochs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A small chart for each group of `CURVES` that the rows speak of."""
    panels = {
        title: [name for name in names if any(row.get(name) is not None for row in epochs)]
        for title, names in CURVES.items()
    }
    panels = {title: names for title, names in panels.items() if names}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = canvas(4.2 * columns, 3.2 * rows, rows=rows, columns=columns)
    for place, axis in enumerate(np.ravel(axes)):
        if place >= len(panels):
            axis.set_visible(False)
            continue
        title, names = list(panels.items())[place]
        for name in names:
            points = [(row["epoch"], row[name]) for row in epochs if row.get(name) is not None]
            axis.plot(
                *zip(*points, strict=True), label=_LABELS.get(name, name), marker="." if len(points) < 30 else None
            )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
    save(figure, path)


def draw_benchmark(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """AP against latency, a line for each model and way of running it; without AP a bar for each point."""
    if any(point["AP"] is not None for point in points):
        figure, axis = canvas(7.5, 4.8)
        _draw_tradeoff(axis, points)
    else:
        figure, axis = canvas(7.5, 1.4 + 0.45 * len(points))
        _draw_bars(axis, points)
    save(figure, path)


def _draw_tradeoff(axis: Any, points: Sequence[Mapping[str, Any]]) -> None:
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        lines.setdefault(_in_words(point), []).append(point)
    for label, line in lines.items():
        times, precisions = [point["median_ms"] for point in line], [point["AP"] for point in line]
        axis.plot(times, precisions, marker=".", label=label)
        for point in line:
            text = str(point["layers"])
            axis.annotate(text, (point["median_ms"], point["AP"]), (3, 3), textcoords="offset points", fontsize=7)
    best = _undominated(points)
    axis.plot(*zip(*best, strict=True), color="0.6", linestyle=":", zorder=0, label="nothing is faster and better")
    spread = [point["median_ms"] for point in points]
    if max(spread) > 8 * min(spread):
        axis.set_xscale("log")
    axis.set_xlabel("median milliseconds of a batch (numbers at the points: decoder layers)")
    axis.set_ylabel("AP")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _draw_bars(axis: Any, points: Sequence[Mapping[str, Any]]) -> None:
    """What was measured stands over its bar, however long its name."""
    rows, medians = range(len(points)), [point["median_ms"] for point in points]
    bars = axis.barh(rows, medians, height=0.4, color="#4c78a8")
    slowest = [point["p95_ms"] for point in points]
    axis.errorbar(slowest, rows, fmt="|", color="0.2", label="95 of 100 runs are faster")
    axis.bar_label(bars, [f" {median:.1f}" for median in medians], fontsize=7, label_type="center", color="w")
    for row, point in zip(rows, points, strict=True):
        axis.text(0, row - 0.28, f" {_in_words(point)}, {point['layers']} layers", fontsize=7)
    axis.set_yticks([])
    axis.set_ylim(len(points) - 0.5, -0.8)
    axis.set_xlabel("median milliseconds of a batch")
    axis.grid(alpha=0.3, axis="x")
    axis.legend(fontsize=7, loc="upper right")


def _in_words(point: Mapping[str, Any]) -> str:
    height, width = point["input"]["height"], point["input"]["width"]
    name = Path(point["name"]).name
    return f"{name}, {point['runner']}, {point['batch']} x {width}x{height}, {point['queries']} queries"


def _undominated(points: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(milliseconds, AP) of the points that no other beats in both, the fastest first."""
    best: list[tuple[float, float]] = []
    for time, ap in sorted((point["median_ms"], -point["AP"]) for point in points):
        if not best or -ap > best[-1][1]:
            best.append((time, -ap))
    return best


def canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes as `pyplot.subplots` gives them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=(width, height), height_ratios=heights)


def save(figure: Any, path: Path) -> None:
    """As PNG; the figure is closed."""
    from matplotlib import pyplot

    figure.tight_layout()
    encoded = BytesIO()
    figure.savefig(encoded, format="png", dpi=110)
    pyplot.close(figure)
    write_bytes(path, encoded.getvalue())
