"""Charts of an evaluation and of a data set's labels. Need matplotlib, an extra; readable from 1 class to hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.evaluation.confusion import Confusion
from detr.evaluation.plots import canvas, save
from detr.evaluation.thresholds import SCORES, ByScore, Calibration
from detr.image import InputConfig

_BLUE, _ORANGE, _GREEN, _PINK, _GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "0.6"  # after Okabe & Ito
_LINES = (_BLUE, _ORANGE, _GREEN, _PINK, "#e69f00", "#56b4e9", "#000000")
_NAMED = len(_LINES)  # classes that have a colour of their own in a chart of curves
_WRITTEN = 20  # classes up to which cells of a confusion matrix hold their number
_LONGEST = 18  # letters of a class name


def draw_confusion(confusion: Confusion, path: Path, *, shares: bool) -> None:
    """Counts, or with `shares` each row by its sum."""
    values = confusion.shares() if shares else confusion.counts.astype(float)
    names = [_short(name) for name in confusion.names] + ["background"]
    side = max(4.6, 2.2 + len(names) * (0.45 if len(names) <= _WRITTEN else 0.15))
    figure, axis = canvas(side + 0.6, side)
    # Small numbers are told apart too: what is rare is what the reader looks for.
    picture = axis.imshow(np.sqrt(values / max(values.max(), 1e-9)), cmap="Blues", vmin=0, vmax=1)
    size = 9 if len(names) <= _WRITTEN else 6.5
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.set_xlabel("what the model says")
    axis.set_ylabel("what it is")
    axis.tick_params(length=0)
    between = np.arange(1, len(names)) - 0.5
    for lines in (axis.hlines, axis.vlines):
        lines(between, -0.5, len(names) - 0.5, color="0.9", linewidth=0.4)
    if len(names) <= _WRITTEN + 1:
        for row, column in zip(*np.nonzero(values), strict=True):
            value = values[row, column]
            text = f"{value:.2f}" if shares else f"{int(value)}"
            dark = np.sqrt(value / values.max()) > 0.6
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    what = "shares of each row" if shares else "objects and boxes"
    axis.set_title(f"{what}; score ≥ {confusion.score:g}, IoU ≥ {confusion.iou:g}", fontsize=10)
    bar = figure.colorbar(picture, ax=axis, fraction=0.04, pad=0.02)
    ticks = np.array([0, 0.25, 0.5, 0.75, 1])
    bar.set_ticks(ticks, labels=[_number(tick**2 * values.max()) for tick in ticks])
    save(figure, path)


def draw_curves(precision: NDArray[np.float64], measured: ByScore, names: Sequence[str], path: Path) -> None:
    """Precision by recall (`precision` [R, K] at IoU 0.5, -1 for classes without objects), and F1 by score.

    A line for each class where these are few; else thin grey ones, and in colour the best and the worst three.
    """
    figure, (left, right) = canvas(9.5, 4.2, columns=2)
    recalls = np.linspace(0, 1, len(precision))
    there = np.flatnonzero(precision[0] >= 0)
    average = precision[:, there].mean(0)
    ranked = there[np.argsort(-average, kind="stable")]
    chosen = ranked if len(ranked) <= _NAMED else np.concatenate((ranked[:3], ranked[-3:]))
    for k in there:
        left.plot(recalls, precision[:, k], color="0.85", linewidth=0.6)
        right.plot(SCORES, measured.f1[k], color="0.85", linewidth=0.6)
    for colour, k in zip(_LINES, chosen, strict=False):
        label = f"{_short(names[k])} {precision[:, k].mean():.3f}"
        left.plot(recalls, precision[:, k], color=colour, linewidth=1.4, label=label)
        best = "" if np.isnan(measured.best[k]) else f" {measured.best_f1[k]:.2f} at {measured.best[k]:.2f}"
        right.plot(SCORES, measured.f1[k], color=colour, linewidth=1.4, label=f"{_short(names[k])}{best}")
    if len(there) > 1:
        mean = precision[:, there].mean(1)
        left.plot(recalls, mean, color="black", linewidth=2.2, linestyle="--", label=f"mean {mean.mean():.3f}")
        right.plot(SCORES, measured.f1[there].mean(0), color="black", linewidth=2.2, linestyle="--", label="mean")
    few = "" if len(chosen) == len(there) else ", the best and the worst three of " + str(len(there))
    left.set(xlabel="recall", ylabel="precision", title=f"precision by recall at IoU 0.5 (AP50{few})")
    right.set(xlabel="score from which boxes are shown", ylabel="F1", title="F1 by score (the best, and where)")
    for axis in (left, right):
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.3)
        if len(there):
            axis.legend(fontsize=8, framealpha=0.9)
    save(figure, path)


def draw_class_curves(precision: NDArray[np.float64], names: Sequence[str], path: Path) -> None:
    """Precision by recall, both from 0 to 1, in a frame for each class, the worst first.

    `precision` [2, R, K] is that at IoU 0.5, drawn through, and at 0.75, dashed. All frames are in one pair of axes: a
    pair for each would take half a minute.
    """
    there = np.flatnonzero(precision[0][0] >= 0)
    there = there[np.argsort(precision[0][:, there].mean(0), kind="stable")]
    columns = min(6, max(1, len(there)))
    rows = max(1, -(-len(there) // columns))
    figure, axis = canvas(max(4.4, 1.58 * columns), 0.5 + 1.75 * rows)
    recalls = np.linspace(0, 1, precision.shape[1])
    for place, k in enumerate(there.tolist()):
        left, bottom = 1.15 * (place % columns), -1.3 * (place // columns)
        half = np.array([0.5, 0.5])
        axis.plot(left + np.array([0, 1, 1, 0, 0]), bottom + np.array([0, 0, 1, 1, 0]), color="0.5", linewidth=0.8)
        axis.plot(left + half, bottom + np.array([0, 1]), left + np.array([0, 1]), bottom + half, color="0.88")
        axis.fill_between(left + recalls, bottom, bottom + precision[0][:, k], color=_BLUE, alpha=0.12, linewidth=0)
        for values, colour, style in ((precision[0][:, k], _BLUE, "-"), (precision[1][:, k], _ORANGE, "--")):
            axis.plot(left + recalls, bottom + values, color=colour, linestyle=style, linewidth=1.3)
        title = f"{_short(names[k])}  {precision[0][:, k].mean():.3f}"
        axis.text(left + 0.5, bottom + 1.05, title, ha="center", va="bottom", fontsize=8.5)
    axis.set(xlim=(-0.05, 1.15 * columns - 0.1), ylim=(-1.3 * (rows - 1) - 0.05, 1.25))
    axis.set_aspect("equal")
    axis.axis("off")
    save(figure, path)


def draw_calibration(measured: Calibration, path: Path) -> None:
    """A reliability diagram: of the boxes with such a score, so many are right; below how many these are."""
    figure, (upper, lower) = canvas(5, 5, rows=2, heights=(3, 1))
    middle, width = (measured.edges[:-1] + measured.edges[1:]) / 2, np.diff(measured.edges) * 0.92
    upper.bar(middle, np.nan_to_num(measured.precision), width, color=_BLUE, label="share of right boxes")
    upper.plot((0, 1), (0, 1), color="black", linestyle="--", linewidth=1, label="as the score says")
    upper.plot(measured.score, measured.precision, "o", color=_ORANGE, markersize=5, label="at the mean score")
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of right boxes")
    upper.set_title(f"expected calibration error {measured.error:.3f}", fontsize=10)
    upper.legend(fontsize=8, loc="upper left")
    lower.bar(middle, measured.counts, width, color=_GREY)
    lower.set(xlim=(0, 1), xlabel="score", ylabel="boxes")
    if measured.counts.max() > 50 * max(1, measured.counts.min()):
        lower.set_yscale("log")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    save(figure, path)


def draw_labels(annotations: Annotations, input: InputConfig, path: Path) -> None:
    """How many objects each class has, where they lie, their shapes, and their size as the network sees them."""
    figure, axes = canvas(11, 8, rows=2, columns=2)
    (counts, places), (shapes, sides) = axes
    _draw_counts(counts, annotations)
    plain = ~annotations.crowd
    images, boxes = annotations.image_indices[plain], annotations.boxes[plain]
    sizes = np.stack((annotations.widths, annotations.heights), 1)
    known = (sizes[images] > 0).all(1)
    relative = boxes[known] / np.tile(sizes[images[known]], 2)
    centres = relative[:, :2] + relative[:, 2:] / 2
    for axis, points, title, words in (
        (places, centres, "centres of the boxes", ("x / width", "y / height")),
        (shapes, relative[:, 2:], "sizes of the boxes, as shares of the image", ("width", "height")),
    ):
        axis.hist2d(points[:, 0], points[:, 1], bins=50, range=((0, 1), (0, 1)), cmap="Blues", norm=_rare_shown(points))
        axis.set_aspect("equal")
        axis.set_title(title, fontsize=10)
        axis.set(xlabel=words[0], ylabel=words[1])
    places.invert_yaxis()
    inputs = np.array([input.size_of(h, w) if min(h, w) > 0 else (0, 0) for w, h in sizes.tolist()]).reshape(-1, 2)
    seen = np.sqrt(np.prod(relative[:, 2:] * inputs[images[known]][:, ::-1], 1))
    _draw_sides(sides, seen[seen > 0])
    save(figure, path)


def _draw_counts(axis: Any, annotations: Annotations) -> None:
    """A bar for each class where these are few; else all of them from the most frequent on, and the ends by name."""
    counts = annotations.counts()
    order = np.argsort(-counts, kind="stable")
    names = [_short(annotations.classes.names[k]) for k in order]
    axis.bar(range(len(order)), counts[order], color=_BLUE)
    if len(order) <= 30:
        axis.set_xticks(range(len(order)), names, rotation=90 if len(order) > 6 else 0, fontsize=8)
        if len(order) <= 12:
            for place, count in enumerate(counts[order].tolist()):
                axis.annotate(str(count), (place, count), ha="center", va="bottom", fontsize=8)
    else:
        shown = np.unique(np.linspace(0, len(order) - 1, 24).round().astype(int))
        axis.set_xticks(shown, [names[place] for place in shown], rotation=90, fontsize=7)
    if len(counts) and counts.max() > 50 * max(1, counts.min()):
        axis.set_yscale("log")
    axis.set_title(f"objects of each class, {counts.sum()} in all", fontsize=10)
    axis.margins(x=0.01, y=0.1)
    axis.grid(alpha=0.3, axis="y")


def _draw_sides(axis: Any, sides: NDArray[np.float64]) -> None:
    if len(sides):
        axis.hist(sides, bins=np.geomspace(max(1, sides.min()), max(2, sides.max()) * 1.001, 40), color=_BLUE)
        axis.set_xscale("log")
        ticks = [2**power for power in range(12) if sides.min() / 2 <= 2**power <= sides.max() * 2]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        small = int((sides < 16).sum())
        label = f"{small / len(sides):.1%} are under 16 pixels: hard to find" if small else "none is under 16 pixels"
        axis.axvline(16, color=_ORANGE, linestyle="--", label=label)
        axis.legend(fontsize=8)
    axis.set_title("sizes as the network sees them", fontsize=10)
    axis.set(xlabel="side of a square as large, in pixels of the input", ylabel="objects")
    axis.grid(alpha=0.3)


def _rare_shown(points: NDArray[np.float64]) -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5) if len(points) else None


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _number(value: float) -> str:
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.0f}"
