"""The pictures that an evaluation leaves in the folder of its run: what was found, and the charts of how good it is."""

from __future__ import annotations

from pathlib import Path

from detr.data.annotations import Annotations
from detr.data.coco import CocoDataset
from detr.evaluation import plots
from detr.evaluation.charts import draw_confusion, draw_curves, draw_labels
from detr.evaluation.confusion import SCORE, confusion
from detr.evaluation.metrics import Metrics
from detr.evaluation.outcomes import outcomes
from detr.evaluation.pictures import draw_samples
from detr.evaluation.predictions import DetectionArrays
from detr.evaluation.thresholds import by_score
from detr.image import InputConfig

SAMPLES, LABELS = "samples.jpg", "labels.png"
CONFUSION, SHARES, CURVES = "confusion.png", "confusion_shares.png", "curves.png"


def draw_evaluation(folder: Path, dataset: CocoDataset, metrics: Metrics, found: DetectionArrays) -> list[Path]:
    """Write them, and say which: `samples.jpg`; with matplotlib also the confusion matrix and the curves."""
    written = [folder / SAMPLES] if len(dataset) else []
    if written:
        draw_samples(dataset, found, written[0], score=SCORE)
    return [*written, *draw_charts(folder, dataset.annotations, metrics, found)]


def draw_charts(folder: Path, annotations: Annotations, metrics: Metrics, found: DetectionArrays) -> list[Path]:
    """Those that need no images; none without matplotlib."""
    if not plots.available():
        return []
    seen = outcomes(annotations, found)
    matrix = confusion(seen)
    draw_confusion(matrix, folder / CONFUSION, shares=False)
    draw_confusion(matrix, folder / SHARES, shares=True)
    draw_curves(metrics.precision_at(0.5), by_score(seen), annotations.classes.names, folder / CURVES)
    return [folder / name for name in (CONFUSION, SHARES, CURVES)]


def draw_set(folder: Path, annotations: Annotations, input: InputConfig) -> list[Path]:
    """`labels.png`: what a data set holds, as a network with that input sees it; nothing without matplotlib."""
    if not plots.available():
        return []
    draw_labels(annotations, input, folder / LABELS)
    return [folder / LABELS]
