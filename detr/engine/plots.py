"""Charts: what a training run did, and what accuracy costs in time. Needs matplotlib, an extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from detr.files import write_bytes

CURVES = {  # title -> columns of the epochs' rows
    "loss": ("loss",),
    "loss of the last decoder layer": ("loss_vfl", "loss_focal", "loss_bbox", "loss_giou"),
    "AP": ("AP", "AP50", "AP75"),
    "AP by size": ("APs", "APm", "APl"),
    "learning rate": ("lr",),
    "seconds per epoch": ("train_seconds", "val_seconds"),
}


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw_results(epochs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A small chart for each group of `CURVES` that the rows speak of."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        title: [name for name in names if any(row.get(name) is not None for row in epochs)]
        for title, names in CURVES.items()
    }
    panels = {title: names for title, names in panels.items() if names}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(panels):
            axis.set_visible(False)
            continue
        title, names = list(panels.items())[place]
        for name in names:
            points = [(row["epoch"], row[name]) for row in epochs if row.get(name) is not None]
            axis.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
    _write(figure, path)


def draw_tradeoff(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """AP against latency: a line for each model and number of queries, along its layers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.6))
    lines: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for point in points:
        if point["ap"] is not None:
            lines.setdefault((point["name"], point["queries"]), []).append(point)
    for (name, queries), line in lines.items():
        times, precisions = [point["median_ms"] for point in line], [point["ap"] for point in line]
        axis.plot(times, precisions, marker=".", label=f"{Path(name).name}, {queries} queries")
        for point in line:
            label = str(point["layers"])
            axis.annotate(label, (point["median_ms"], point["ap"]), (3, 3), textcoords="offset points", fontsize=7)
    axis.set_xlabel("median milliseconds of a batch (numbers at the points: decoder layers)")
    axis.set_ylabel("AP")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    encoded = BytesIO()
    figure.savefig(encoded, format="png", dpi=110)
    pyplot.close(figure)
    write_bytes(path, encoded.getvalue())
