"""What `detr val` says of what it measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr.cli.plain import print_json, to_stderr, to_stdout

if TYPE_CHECKING:
    from detr.data.annotations import Annotations
    from detr.data.coco import CocoDataset
    from detr.diagnose.diagnosis import Diagnosis
    from detr.evaluation.metrics import Metrics


def show(metrics: Metrics, report: dict[str, Any], *, as_json: bool) -> None:
    for note in metrics.notes:
        to_stderr(f"note: {note}")
    if as_json:
        print_json(report)
    else:
        to_stdout(f"{metrics.class_table()}\n\n{metrics.table()}")
    sys.stdout.flush()


def tell_why(
    diagnosis: Diagnosis, metrics: Metrics, folder: Path, dataset: CocoDataset | str, **options: Any
) -> list[str]:
    """Say it, and write the page; the names of the files."""
    from detr.diagnose.report import table
    from detr.diagnose.writing import write_diagnosis

    to_stdout(f"\n{table(diagnosis)}", err=options["as_json"])
    return write_diagnosis(folder, "Why AP is what it is", diagnosis, metrics, dataset)


def noted(annotations: Annotations) -> Annotations:
    for note in annotations.notes:
        to_stderr(f"note: {note}")
    return annotations
