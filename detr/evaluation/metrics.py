"""The numbers of an evaluation: curves, the 12 COCO numbers, per class; as a table for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.classes import printable
from detr.data.annotations import Annotations
from detr.errors import counted
from detr.evaluation.predictions import DetectionArrays, ranks_by_id

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = {  # square pixels, both ends included
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


@dataclass(frozen=True, eq=False)
class Curves:
    """What the numbers are means of; -1 where there is no ground truth. Classes stand in the order of their ids.

    `T` IoU thresholds, `R` recall points, `K` classes, `A` area ranges, `M` limits of detections per class and image.
    """

    max_dets: tuple[int, ...]  # M
    precision: NDArray[np.float64]  # [T, R, K, A, M]
    recall: NDArray[np.float64]  # [T, K, A, M]
    scores: NDArray[np.float64]  # [T, R, K, A, M] the score at which each recall is reached

    @classmethod
    def empty(cls, num_classes: int, max_dets: tuple[int, ...]) -> Curves:
        shape = (len(IOU_THRESHOLDS), len(RECALL_POINTS), num_classes, len(AREA_RANGES), len(max_dets))
        return cls(max_dets, -np.ones(shape), -np.ones((shape[0], *shape[2:])), -np.ones(shape))

    def average_precision(self, *, threshold: float | None = None, area: str = "all", max_dets: int) -> float:
        """The mean over classes, recall points and thresholds (or at one); -1 where there is nothing to measure."""
        part = self.precision if threshold is None else self.precision[np.isclose(IOU_THRESHOLDS, threshold)]
        return _mean(part[:, :, :, list(AREA_RANGES).index(area), self.max_dets.index(max_dets)])

    def average_recall(self, *, area: str = "all", max_dets: int) -> float:
        """The mean over classes and thresholds of the highest recall; -1 where there is nothing to measure."""
        return _mean(self.recall[:, :, list(AREA_RANGES).index(area), self.max_dets.index(max_dets)])


@dataclass(frozen=True)
class Conditions:
    """How it was measured."""

    evaluator: str
    version: str
    max_dets: tuple[int, int, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "evaluator": self.evaluator,
            "version": self.version,
            "max_dets": list(self.max_dets),
            "iou_thresholds": [round(float(threshold), 2) for threshold in IOU_THRESHOLDS],
            "recall_points": len(RECALL_POINTS),
            "area_ranges": {name: list(ends) for name, ends in AREA_RANGES.items()},
        }


@dataclass(frozen=True)
class ClassMetrics:
    """The numbers of one class; -1 where it has no ground truth."""

    index: int
    id: int | str
    name: str
    ap: float
    ap50: float
    ar: float  # at the largest limit of detections
    num_boxes: int  # ground truth, crowds not included
    num_crowds: int
    num_images: int  # with at least one such box
    num_detections: int


@dataclass(frozen=True, eq=False, repr=False)
class Metrics:
    """What `evaluate` found."""

    stats: NDArray[np.float64]  # [12] in COCO's order, -1 where there is nothing to measure
    per_class: tuple[ClassMetrics, ...]  # by class index
    also: dict[str, float]  # AP with 100 detections, where more were allowed
    counts: dict[str, int]  # images, boxes, crowds, detections, ties
    settings: Conditions
    notes: tuple[str, ...]  # one line for each thing about the input that the reader should know
    curves: Curves

    def __repr__(self) -> str:
        return f"Metrics(AP {_shown(self.ap, 3)}, AP50 {_shown(self.ap50, 3)}; {self.counts['images']} images)"

    @property
    def names(self) -> tuple[str, ...]:
        """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl (the ARs by their own limits)."""
        recalls = (f"AR{limit}" for limit in self.settings.max_dets)
        return ("AP", "AP50", "AP75", "APs", "APm", "APl", *recalls, "ARs", "ARm", "ARl")

    @property
    def ap(self) -> float:
        return float(self.stats[0])

    @property
    def ap50(self) -> float:
        return float(self.stats[1])

    def precision_at(self, threshold: float) -> NDArray[np.float64]:
        """[R, K] precision at each of `RECALL_POINTS` at one IoU, by class index; -1 for classes without objects."""
        t = int(np.flatnonzero(np.isclose(IOU_THRESHOLDS, threshold))[0])
        ranks = ranks_by_id([row.id for row in self.per_class])
        return self.curves.precision[t, :, :, 0, self.curves.max_dets.index(self.settings.max_dets[-1])][:, ranks]

    def as_dict(self) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self.names, self.stats, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """Every number in full; null where there is nothing to measure."""
        rows = [
            {
                "index": row.index,
                "id": row.id,
                "name": row.name,
                "AP": _or_none(row.ap),
                "AP50": _or_none(row.ap50),
                f"AR{self.settings.max_dets[-1]}": _or_none(row.ar),
                "boxes": row.num_boxes,
                "crowds": row.num_crowds,
                "images": row.num_images,
                "detections": row.num_detections,
            }
            for row in self.per_class
        ]
        return {
            "metrics": {name: _or_none(value) for name, value in (self.as_dict() | self.also).items()},
            "classes": rows,
            "counts": self.counts,
            "settings": self.settings.to_json(),
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """COCO's twelve lines, and how they were measured."""
        first, middle, last = self.settings.max_dets
        rows = [("Precision", "AP", "0.50:0.95", "all", last)]
        rows += [("Precision", "AP", iou, "all", last) for iou in ("0.50", "0.75")]
        rows += [("Precision", "AP", "0.50:0.95", area, last) for area in ("small", "medium", "large")]
        rows += [("Recall", "AR", "0.50:0.95", "all", limit) for limit in (first, middle, last)]
        rows += [("Recall", "AR", "0.50:0.95", area, last) for area in ("small", "medium", "large")]
        lines = [
            f"Average {what:<9} ({short}) @[ IoU={iou:<9} | area={area:>6} | maxDets={limit:>3} ] = {_shown(value, 3)}"
            for (what, short, iou, area, limit), value in zip(rows, self.stats.tolist(), strict=True)
        ]
        lines += [f"{name} = {_shown(value, 3)}" for name, value in self.also.items()]
        sizes = ", ".join(f"{name} {low:g}..{high:g}" for name, (low, high) in AREA_RANGES.items() if name != "all")
        one = {"images": "image", "boxes": "box", "crowds": "crowd", "detections": "detection", "ties": "tie"}
        counts = ", ".join(counted(number, one[what], what) for what, number in self.counts.items())
        lines += [f"{counts}", f"evaluator {self.settings.evaluator} {self.settings.version}; areas in px²: {sizes}"]
        return "\n".join(lines)

    def class_table(self) -> str:
        """One line per class, best AP first, classes without ground truth last."""
        head = ("class", "AP", "AP50", f"AR{self.settings.max_dets[-1]}", "boxes", "images", "detections")
        body = [
            (
                printable(row.name),
                *(_shown(value, 3) for value in (row.ap, row.ap50, row.ar)),
                *map(str, (row.num_boxes, row.num_images, row.num_detections)),
            )
            for row in sorted(self.per_class, key=lambda row: -row.ap)
        ]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = []
        for name, *numbers in (head, *body):
            cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
            lines.append("  ".join([name.ljust(widths[0]), *cells]))
        return "\n".join(lines)


def summarise(
    curves: Curves,
    annotations: Annotations,
    detections: DetectionArrays,
    *,
    settings: Conditions,
    notes: tuple[str, ...] = (),
) -> Metrics:
    """The 12 numbers and those of each class, from the curves."""
    last = settings.max_dets[-1]
    sizes = ("small", "medium", "large")
    stats = [curves.average_precision(threshold=threshold, max_dets=last) for threshold in (None, 0.5, 0.75)]
    stats += [curves.average_precision(area=area, max_dets=last) for area in sizes]
    stats += [curves.average_recall(max_dets=limit) for limit in settings.max_dets]
    stats += [curves.average_recall(area=area, max_dets=last) for area in sizes]
    also = {"AP at 100 detections": curves.average_precision(max_dets=100)} if last > 100 else {}
    counts = {
        "images": len(annotations.image_ids),
        "boxes": int((~annotations.crowd).sum()),
        "crowds": int(annotations.crowd.sum()),
        "detections": len(detections.scores),
        "ties": _num_ties(detections),
    }
    per_class = _per_class(curves, annotations, detections, last)
    return Metrics(np.array(stats), per_class, also, counts, settings, notes, curves)


def _per_class(
    curves: Curves, annotations: Annotations, detections: DetectionArrays, last: int
) -> tuple[ClassMetrics, ...]:
    classes = annotations.classes
    plain = ~annotations.crowd
    boxes = np.bincount(annotations.labels[plain], minlength=len(classes))
    crowds = np.bincount(annotations.labels[~plain], minlength=len(classes))
    found = np.bincount(detections.labels, minlength=len(classes))
    seen = np.unique(np.stack((annotations.labels[plain], annotations.image_indices[plain])), axis=1)[0]
    images = np.bincount(seen, minlength=len(classes))
    m = curves.max_dets.index(last)
    return tuple(
        ClassMetrics(
            index=k,
            id=classes.ids[k],
            name=classes.names[k],
            ap=_mean(curves.precision[:, :, rank, 0, m]),
            ap50=_mean(curves.precision[0, :, rank, 0, m]),
            ar=_mean(curves.recall[:, rank, 0, m]),
            num_boxes=int(boxes[k]),
            num_crowds=int(crowds[k]),
            num_images=int(images[k]),
            num_detections=int(found[k]),
        )
        for k, rank in enumerate(ranks_by_id(classes.ids))
    )


def _num_ties(detections: DetectionArrays) -> int:
    """How many detections share their score with another of the class: there the order of images and file decides."""
    order = np.lexsort((detections.scores, detections.labels))
    labels, scores = detections.labels[order], detections.scores[order]
    same = (labels[1:] == labels[:-1]) & (scores[1:] == scores[:-1])
    return int((np.append(same, False) | np.insert(same, 0, False)).sum()) if len(scores) else 0


def _mean(values: NDArray[np.float64]) -> float:
    measured = values[values > -1]
    return float(np.mean(measured)) if len(measured) else -1.0


def _or_none(value: float) -> float | None:
    return value if value >= 0 else None


def _shown(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value >= 0 else "n/a"
