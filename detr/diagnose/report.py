"""A diagnosis as JSON, each error with image and box so that it can be looked up, and as a table for the terminal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr.diagnose.diagnosis import Diagnosis
from detr.diagnose.places import WHY, Places
from detr.diagnose.tide import CAUSES, MISSED, RIGHT
from detr.errors import counted
from detr.evaluation.thresholds import LOWEST, Calibration
from detr.json_shape import box_row, found_row

MEANING = {
    "class": "on an object, but of another class",
    "place": "the right class, but beside the object",
    "both": "another class, and beside the object",
    "duplicate": "on an object that a better box has found",
    "background": "on nothing",
    "missed": "objects that no box is on or beside",
}
WHAT_HELPS = {
    "class": "more examples of the classes taken for each other; labels that are used the same way everywhere",
    "place": "a larger input (--imgsz); boxes drawn as tightly in every picture; a longer training",
    "both": "as for class and place",
    "duplicate": "a longer training; a higher --conf hides the weaker ones",
    "background": "look at the worst images: objects nobody labelled? Else pictures with nothing in them, to train on",
    "missed": "see below which are not found: small ones want a larger input or --slice, rare ones train.balance=0.1",
}
DEFINITION = (
    "AP at IoU 0.5 and what mending each cause alone would add, as TIDE measures it (Bolya et al. 2020): the 100 best "
    "boxes of an image count, over all classes. Shown are boxes from the best threshold of their class on."
)


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    causes = diagnosis.causes
    counts, shown = causes.counts(), shown_counts(diagnosis)
    return {
        "definition": DEFINITION,
        "AP50": causes.ap50,
        "causes": {
            name: {
                "meaning": MEANING[name],
                "AP50": causes.gains[name],
                "count": counts[name],
                "shown": shown[name],
            }
            for name in CAUSES
        },
        "false_positives": {"AP50": causes.without_false},
        "false_negatives": {"AP50": causes.without_missed},
        "queries": _queries(diagnosis),
        "objects": [{**vars(group), "recall": group.recall} for group in diagnosis.groups],
        "calibration": _calibration(diagnosis.calibration),
        "classes": class_rows(diagnosis),
        "confusion": {
            "confidence": diagnosis.confusion.score,
            "iou": diagnosis.confusion.iou,
            "names": [*diagnosis.confusion.names, "background"],
            "counts": diagnosis.confusion.counts.tolist(),
        },
        "worst_images": [
            {**_image(diagnosis, image), "false": false, "missed": missed}
            for image, false, missed in diagnosis.worst_images(20)
        ],
        "errors": _errors(diagnosis),
    }


def shown_counts(diagnosis: Diagnosis) -> dict[str, int]:
    """How many shown boxes have each cause, and how many objects no shown box found."""
    cause = diagnosis.causes.cause[diagnosis.shown]
    counted = {name: int((cause == index).sum()) for index, name in enumerate(CAUSES)}
    return {**counted, CAUSES[MISSED]: len(diagnosis.missed)}


def why_missed(diagnosis: Diagnosis) -> dict[str, int] | None:
    """How many of the missed objects were lost where; None where it wasn't seen."""
    if not isinstance(diagnosis.places, Places):
        return None
    why = diagnosis.places.why_missed()[diagnosis.missed]
    return {name: int((why == index).sum()) for index, name in enumerate(WHY)}


def class_rows(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """A row for each class: objects, shown boxes of each cause, best threshold and the F1 there."""
    cause, labels = diagnosis.causes.cause, diagnosis.outcomes.labels
    counts, names = diagnosis.annotations.counts().tolist(), diagnosis.annotations.classes.names
    lost = np.bincount(diagnosis.annotations.labels[diagnosis.missed], minlength=len(names)).tolist()
    rows = []
    for k, name in enumerate(names):
        mine = diagnosis.shown & (labels == k)
        found = {CAUSES[index]: int((mine & (cause == index)).sum()) for index in range(MISSED)}
        rows.append(
            {
                "name": name,
                "objects": counts[k],
                "threshold": _number(float(diagnosis.by_score.best[k])),
                "F1": float(diagnosis.by_score.best_f1[k]),
                "shown": int(mine.sum()),
                "right": int((mine & (cause == RIGHT)).sum()),
                **found,
                "missed": lost[k],
            }
        )
    return rows


def table(diagnosis: Diagnosis) -> str:
    """Causes, then what is DETR's own, for the terminal."""
    causes, shown = diagnosis.causes, shown_counts(diagnosis)
    counts = causes.counts()
    lines = [f"AP50 is {causes.ap50:.3f} (as TIDE measures it). What would each mended cause add?"]
    lines.append(f"{'cause':<11} {'AP50':>6} {'in all':>8} {'shown':>7}")
    for name in sorted(CAUSES, key=lambda name: -causes.gains[name]):
        lines.append(f"{name:<11} {causes.gains[name]:>+6.3f} {counts[name]:>8} {shown[name]:>7}  {MEANING[name]}")
    lines.append(f"{'all false':<11} {causes.without_false:>+6.3f}")
    lines.append(f"{'all missed':<11} {causes.without_missed:>+6.3f}")
    return "\n".join([*lines, "", *(f"{what}: {value}" for what, value in facts(diagnosis))])


def facts(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """What concerns a DETR and its scores, in words."""
    over, missed = diagnosis.over_the_limit(), len(diagnosis.missed)
    lost = sum(count - diagnosis.limit for _, count in over)
    images = counted(len(over), "image") if over else "no image"
    duplicates = counted(len(diagnosis.duplicates), "shown box", "shown boxes")
    limit = f"{images} with more than the {diagnosis.limit} that can be found in one"
    rows = [
        ("duplicate queries", f"{duplicates} on objects already found"),
        ("too many objects", f"{limit}; {lost} objects can't be found" if over else limit),
    ]
    why = why_missed(diagnosis)
    if why is None:
        rows.append(("where missed objects were lost", f"not known: {diagnosis.places}"))
    else:
        rows.append((f"where the {missed} missed were lost", ", ".join(f"{n} {name}" for name, n in why.items())))
    worst = [group for group in diagnosis.groups if group.recall is not None]
    if worst:
        least = min(worst, key=lambda group: group.recall or 0)
        rows.append(("found least", f"{least.kind}: {least.name}, {least.found} of {least.objects}"))
    rows.append(("calibration", f"scores are {diagnosis.calibration.error:.3f} off on average (ECE)"))
    best = diagnosis.by_score.best[~np.isnan(diagnosis.by_score.best)]
    if len(best):
        rows.append(("best thresholds", f"{best.min():.2f} to {best.max():.2f}, the median {np.median(best):.2f}"))
    return rows


def _calibration(measured: Calibration) -> dict[str, Any]:
    edges = measured.edges.round(2).tolist()
    columns = (measured.counts.tolist(), measured.score.tolist(), measured.precision.tolist())
    bins = [
        {"from": low, "to": high, "boxes": count, "confidence": _number(score), "right": _number(right)}
        for low, high, count, score, right in zip(edges[:-1], edges[1:], *columns, strict=True)
    ]
    return {"error": _number(measured.error), "scores_from": LOWEST, "bins": bins}


def _queries(diagnosis: Diagnosis) -> dict[str, Any]:
    """What is DETR's own."""
    seen, places = diagnosis.outcomes, diagnosis.places
    duplicates = [
        {
            **_box(diagnosis, detection),
            "object": int(truth),
            "first_box": _box(diagnosis, int(seen.found_by[truth])),
        }
        for detection in diagnosis.duplicates.tolist()
        for truth in (int(diagnosis.causes.about[detection]),)
    ]
    over = [{**_image(diagnosis, image), "objects": count} for image, count in diagnosis.over_the_limit()]
    told: dict[str, Any] = {
        "queries": diagnosis.num_queries,
        "limit": diagnosis.limit,
        "images_over_the_limit": over,
        "duplicates": duplicates,
        "why_missed": why_missed(diagnosis),
    }
    if not isinstance(places, Places):
        return {**told, "left_out": f"where queries started: {places}"}
    return told


def _errors(diagnosis: Diagnosis) -> dict[str, list[dict[str, Any]]]:
    """The shown boxes of each cause, and the objects that were missed."""
    cause, about = diagnosis.causes.cause, diagnosis.causes.about
    names = diagnosis.annotations.classes.names
    listed: dict[str, list[dict[str, Any]]] = {}
    for index, name in enumerate(CAUSES[:MISSED]):
        rows = listed[name] = []
        for detection in np.flatnonzero(diagnosis.shown & (cause == index)).tolist():
            truth = int(about[detection])
            is_one = {} if truth < 0 else {"is": names[diagnosis.annotations.labels[truth]]}
            rows.append({**_box(diagnosis, detection), **is_one})
    listed["missed"] = [_object(diagnosis, truth) for truth in diagnosis.missed.tolist()]
    return listed


def _box(diagnosis: Diagnosis, detection: int) -> dict[str, Any]:
    seen = diagnosis.outcomes
    label = int(seen.labels[detection])
    return {
        **_image(diagnosis, int(seen.images[detection])),
        **found_row(
            diagnosis.annotations.classes.names[label],
            label,
            float(seen.scores[detection]),
            _corners(seen.boxes[detection]),
        ),
    }


def _object(diagnosis: Diagnosis, truth: int) -> dict[str, Any]:
    annotations, places = diagnosis.annotations, diagnosis.places
    label = int(annotations.labels[truth])
    told: dict[str, Any] = {
        **_image(diagnosis, int(annotations.image_indices[truth])),
        "name": annotations.classes.names[label],
        "class": label,
        "box": box_row(_corners(annotations.boxes[truth])),
    }
    if isinstance(places, Places):
        told["why"] = WHY[places.why_missed()[truth]]
        numbers: dict[str, NDArray[np.float64]] = {"start": places.start, "end": places.end, "confidence": places.score}
        told |= {name: _number(float(values[truth])) for name, values in numbers.items()}
    return told


def _image(diagnosis: Diagnosis, image: int) -> dict[str, Any]:
    return {"image_id": diagnosis.annotations.image_ids[image], "file_name": diagnosis.annotations.file_names[image]}


def _corners(box: NDArray[np.float64]) -> list[float]:
    x, y, width, height = box.tolist()
    return [x, y, x + width, y + height]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
