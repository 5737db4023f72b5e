"""What `detr val --why` leaves in the folder of its run."""

from __future__ import annotations

import json
from pathlib import Path

from detr.data.coco import CocoDataset
from detr.diagnose.diagnosis import Diagnosis
from detr.diagnose.page import write_why_page
from detr.diagnose.report import as_json
from detr.diagnose.worst import worst_pictures
from detr.evaluation.metrics import Metrics
from detr.evaluation.thresholds import thresholds_file
from detr.files import write_text

PAGE, REPORT, THRESHOLDS = "why.html", "why.json", "thresholds.json"


def write_diagnosis(
    folder: Path, title: str, diagnosis: Diagnosis, metrics: Metrics, dataset: CocoDataset | str
) -> list[str]:
    """The names of the files written; `dataset` has the images, or is why there are none."""
    classes = diagnosis.annotations.classes
    write_text(folder / REPORT, json.dumps(as_json(diagnosis), allow_nan=False) + "\n")
    write_text(folder / THRESHOLDS, json.dumps(thresholds_file(diagnosis.by_score, classes), indent=1) + "\n")
    pictures = dataset if isinstance(dataset, str) else worst_pictures(diagnosis, dataset)
    write_why_page(folder / PAGE, title, diagnosis, metrics, pictures)
    return [PAGE, REPORT, THRESHOLDS]
