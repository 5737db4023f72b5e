"""The diagnosis as one HTML file that holds all its pictures; nothing from a network."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detr.diagnose.diagnosis import Diagnosis
from detr.diagnose.report import DEFINITION, MEANING, WHAT_HELPS, class_rows, facts, shown_counts
from detr.diagnose.tide import CAUSES
from detr.engine.page import Section, write_page
from detr.evaluation import charts
from detr.evaluation.metrics import Metrics

_HOW_TO_READ = (
    "Each line answers: if this one kind of error were gone and all else stayed, how much higher would AP50 be? The "
    "gains do not add up, because mending one kind uncovers another. Begin with the first line."
)


def write_why_page(
    path: Path, title: str, diagnosis: Diagnosis, metrics: Metrics, pictures: Sequence[tuple[bytes, str]] | str
) -> None:
    """`pictures` of the worst images, as `worst_pictures` makes them, or why there are none."""
    names = diagnosis.annotations.classes.names
    precision = np.stack([metrics.precision_at(0.5), metrics.precision_at(0.75)])
    worst = [] if isinstance(pictures, str) else [(_inline(data, "jpeg"), caption) for data, caption in pictures]
    sections = [
        Section("What costs AP", f"{DEFINITION} {_HOW_TO_READ}", table=_causes(diagnosis)),
        Section("What helps", table=_what_helps(diagnosis), words=True),
        Section("Queries, objects, scores", table=[("about", "what was seen"), *facts(diagnosis)], words=True),
        Section("Which objects are found", "By a shown box of their class, from IoU 0.5 on.", table=_groups(diagnosis)),
        Section(
            "Precision, recall and F1",
            "The best thresholds are in thresholds.json: detr predict SOURCE --conf thresholds.json",
            pictures=[(_chart(charts.draw_curves, precision[0], diagnosis.by_score, names), "")],
            wide=True,
        ),
        Section("Classes", "Boxes are those shown, by what is wrong with them.", table=_classes(diagnosis)),
        Section(
            "Precision by recall of each class",
            "Both run from 0 to 1; through: IoU 0.5, with its AP; dashed: IoU 0.75. The worst class is first.",
            pictures=[(_chart(charts.draw_class_curves, precision, names), "")],
            wide=True,
        ),
        Section("Which class is taken for which", table=_confused(diagnosis), words=True),
        Section(
            "Confusion matrix",
            pictures=[
                (_chart(charts.draw_confusion, diagnosis.confusion, shares=shares), "") for shares in (True, False)
            ],
            wide=len(names) > 12,
        ),
        Section(
            "Do scores say how sure it is?",
            pictures=[(_chart(charts.draw_calibration, diagnosis.calibration), "")],
        ),
        Section(
            "The worst images",
            f"Left out: {pictures}." if isinstance(pictures, str) else
            "Blue boxes are right, vermilion ones are false (with what is wrong), and yellow objects were missed.",
            pictures=worst,
            wide=True,
        ),
    ]  # fmt: skip
    lead = f"AP50 {diagnosis.causes.ap50:.3f} as TIDE measures it; AP {metrics.ap:.3f}, AP50 "
    write_page(path, title, f"{lead}{metrics.ap50:.3f} as COCO does.", sections)


def _causes(diagnosis: Diagnosis) -> list[list[str]]:
    causes, shown = diagnosis.causes, shown_counts(diagnosis)
    counts = causes.counts()
    rows = [["cause", "AP50 to gain", "among all boxes", "among shown boxes"]]
    rows += [
        [f"{name}: {MEANING[name]}", f"{causes.gains[name]:+.3f}", str(counts[name]), str(shown[name])]
        for name in sorted(CAUSES, key=lambda name: -causes.gains[name])
    ]
    rows.append(["all false boxes, if none were scored above 0", f"{causes.without_false:+.3f}", "", ""])
    return [*rows, ["all missed, if every object had been found", f"{causes.without_missed:+.3f}", "", ""]]


def _what_helps(diagnosis: Diagnosis) -> list[list[str]]:
    """For the causes that cost something, the dearest first."""
    gains = diagnosis.causes.gains
    costly = sorted((name for name in CAUSES if gains[name] >= 0.0005), key=lambda name: -gains[name])
    return [["against", "try"], *([name, WHAT_HELPS[name]] for name in costly)]


def _groups(diagnosis: Diagnosis) -> list[list[str]]:
    rows = [["which", "objects", "found", "recall"]]
    for group in diagnosis.groups:
        if group.recall is not None:
            rows.append([f"{group.kind}: {group.name}", str(group.objects), str(group.found), f"{group.recall:.0%}"])
    return rows


def _classes(diagnosis: Diagnosis) -> list[list[str]]:
    rows = class_rows(diagnosis)
    head = ["class", "objects", "best threshold", "F1 there", "right", *CAUSES]
    body = []
    for row in sorted(rows, key=lambda row: (not row["objects"], row["F1"])):
        threshold = "" if row["threshold"] is None else f"{row['threshold']:.2f}"
        f1 = f"{row['F1']:.2f}" if row["objects"] else ""
        body.append([row["name"], str(row["objects"]), threshold, f1, *(str(row[name]) for name in ("right", *CAUSES))])
    return [head, *body]


def _confused(diagnosis: Diagnosis) -> list[list[str]]:
    worst = diagnosis.confusion.worst(10)
    return [["is", "taken for", "times"], *([is_one, said, str(count)] for is_one, said, count in worst)]


def _chart(draw: Callable[..., None], *shown: Any, **options: Any) -> str:
    """What `draw` draws of it, as an address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chart.png"
        draw(*shown, file, **options)
        return _inline(file.read_bytes(), "png")


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
