"""Data sets and predictions made for the tests of diagnosis."""

import numpy as np

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.evaluation.predictions import DetectionArrays


def truths(*rows, names=("cat", "dog"), images=3, crowd=()):
    """Annotations from rows of (image, class, x, y, w, h); `crowd` are row numbers."""
    table = np.array(rows, dtype=float).reshape(-1, 6)
    crowds = np.isin(np.arange(len(table)), crowd)
    return Annotations(
        Classes.from_names(names),
        tuple(range(images)),
        tuple(f"{n}.png" for n in range(images)),
        np.full(images, 200),
        np.full(images, 300),
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        table[:, 2:],
        table[:, 4] * table[:, 5],
        crowds,
    )


def found(*rows, images=3):
    """Detections from rows of (image, class, x, y, w, h, score)."""
    table = np.array(rows, dtype=float).reshape(-1, 7)
    return DetectionArrays(
        tuple(range(images)), table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:6], table[:, 6]
    )


def random_case(seed, *, images=12, classes=5, digits=2):
    """A set with every kind of error: noised copies of the truth, wrong classes, repetitions, phantoms, crowds.

    Scores are rounded to `digits`, so that many are equal; one class has detections and no objects.
    """
    draw = np.random.default_rng(seed)
    rows, detections = [], []
    for image in range(images):
        for _ in range(int(draw.integers(0, 9))):
            x, y, w, h = *draw.uniform(0, 150, 2), *draw.uniform(8, 80, 2)
            label = int(draw.integers(0, classes - 1))
            rows.append((image, label, x, y, w, h))
            for _ in range(int(draw.integers(0, 4))):
                moved = np.array([x, y, w, h]) + draw.normal(0, draw.choice([0, 0.1, 0.4]), 4) * [w, h, w, h]
                said = label if draw.random() < 0.7 else int(draw.integers(0, classes))
                detections.append((image, said, *moved[:2], *np.maximum(moved[2:], 2), round(draw.random(), digits)))
        for _ in range(int(draw.integers(0, 3)) if image != 2 else 0):
            box = (*draw.uniform(0, 150, 2), *draw.uniform(8, 80, 2))
            detections.append((image, int(draw.integers(0, classes)), *box, round(draw.random(), digits)))
    crowd = draw.choice(len(rows), len(rows) // 8, replace=False)
    names = [f"class {k}" for k in range(classes)]
    return truths(*rows, names=names, images=images, crowd=crowd), found(*detections, images=images)
