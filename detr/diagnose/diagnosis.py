"""All that is known of why a model is as good as it is, put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.diagnose.groups import Group, groups
from detr.diagnose.places import Places
from detr.diagnose.tide import DUPLICATE, Causes, find_causes
from detr.evaluation.confusion import Confusion, confusion
from detr.evaluation.outcomes import MOST_PER_IMAGE, Outcomes, outcomes
from detr.evaluation.predictions import DetectionArrays
from detr.evaluation.thresholds import ByScore, Calibration, by_score, calibration

OTHERWISE = 0.25  # score from which boxes of a class are shown that has no best one


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """`D` detections and `A` annotations as in `Outcomes`, `K` classes. Shown are boxes from their class's best
    threshold on."""

    outcomes: Outcomes
    causes: Causes
    by_score: ByScore
    calibration: Calibration
    confusion: Confusion
    thresholds: NDArray[np.float64]  # [K]
    shown: NDArray[np.bool_]  # [D] and not in a crowd
    found: NDArray[np.bool_]  # [A] by a shown box
    groups: list[Group]
    num_queries: int | None  # None where the model isn't known
    places: Places | str  # or why it isn't known where queries started

    @property
    def annotations(self) -> Annotations:
        return self.outcomes.annotations

    @property
    def missed(self) -> NDArray[np.int64]:
        """The objects that no shown box found."""
        return np.flatnonzero(~self.found & ~self.annotations.crowd)

    @property
    def duplicates(self) -> NDArray[np.int64]:
        """Shown boxes on an object that another query's box has found: of a class a query gives one box."""
        return np.flatnonzero(self.shown & (self.causes.cause == DUPLICATE))

    @property
    def limit(self) -> int:
        """How many objects of an image can be found at most."""
        return min(MOST_PER_IMAGE, self.num_queries or MOST_PER_IMAGE)

    def over_the_limit(self) -> list[tuple[int, int]]:
        """(image, number of objects) where there are more objects than can be found, most first."""
        annotations = self.annotations
        counts = np.bincount(annotations.image_indices[~annotations.crowd], minlength=len(annotations.image_ids))
        images = np.flatnonzero(counts > self.limit)
        return sorted(((image, int(counts[image])) for image in images.tolist()), key=lambda each: -each[1])

    def worst_images(self, most: int) -> list[tuple[int, int, int]]:
        """(image, false boxes, missed objects), most of both together first, images without errors left out."""
        count = len(self.annotations.image_ids)
        wrong = self.shown & ~self.outcomes.right
        false = np.bincount(self.outcomes.images[wrong], minlength=count)
        missed = np.bincount(self.annotations.image_indices[self.missed], minlength=count)
        order = np.argsort(-(false + missed), kind="stable")[:most]
        return [(i, int(false[i]), int(missed[i])) for i in order.tolist() if false[i] + missed[i]]


def diagnose(
    annotations: Annotations, detections: DetectionArrays, *, num_queries: int | None, places: Places | str
) -> Diagnosis:
    """`num_queries` of the model that made the detections, and `places` seen meanwhile, or why not."""
    seen = outcomes(annotations, detections)
    measured = by_score(seen)
    thresholds = measured.threshold(OTHERWISE)
    shown = (seen.scores >= thresholds[seen.labels]) & ~seen.ignored
    found = np.zeros(len(annotations.labels), dtype=bool)
    found[seen.truth[shown & seen.right]] = True
    return Diagnosis(
        outcomes=seen,
        causes=find_causes(seen),
        by_score=measured,
        calibration=calibration(seen),
        confusion=confusion(seen),
        thresholds=thresholds,
        shown=shown,
        found=found,
        groups=groups(annotations, found),
        num_queries=num_queries,
        places=places,
    )
