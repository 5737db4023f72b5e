"""Whether a map shows what matters: hiding what was looked at must cost a detection more than hiding as much elsewhere.

The picture is changed and goes through the network again; a map that only looks good doesn't pass (deletion, Petsiuk
et al. 2018, of detections).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageFilter
from torch import Tensor

from detr.bands import Bands, band_by_band
from detr.boxes import iou
from detr.errors import counted
from detr.explain.maps import largest
from detr.explain.records import Array, Explanation

Hide = Literal["blur", "mean"]
Mask = NDArray[np.bool_]
Answer = Callable[[Sequence[Bands]], list[tuple[Tensor, Tensor]]]
"""Pictures of one size -> all boxes [Q, 4] xyxy in pixels and scores [Q, C] of each."""

SHARE, DRAWS = 0.3, 4
"""Of the box's area that is hidden, and how many random places of that size."""

PLACES = ("looked at", "elsewhere", "far off", "inside the box")
_SAME_OBJECT = 0.5  # IoU from which a box is still of the same object
_RESAMPLES = 2000


@dataclass(frozen=True)
class Trial:
    """How hiding costs a detection, and where: the best box of its class that still overlaps it by half."""

    name: str
    before: float  # its score
    score_drops: dict[str, float]  # by place
    iou_drops: dict[str, float]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Over detections: the mean drop of the score and of the IoU by what was hidden.

    `margin` is by how much more the score drops where it was looked at than elsewhere, the mean over detections, and
    `interval` its 95 % interval by resampling detections.
    """

    trials: tuple[Trial, ...]
    share: float = SHARE
    hide: Hide = "blur"
    draws: int = DRAWS

    def mean_drop(self, place: str, *, of: Literal["score", "iou"] = "score") -> float:
        drops = [(each.score_drops if of == "score" else each.iou_drops)[place] for each in self.trials]
        return float(np.mean(drops)) if drops else math.nan

    @property
    def margin(self) -> float:
        return float(np.mean(self.margins())) if self.trials else math.nan

    def margins(self, than: str = "elsewhere") -> Array:
        """[N], by how much more the score of each detection drops where it was looked at."""
        return np.array([each.score_drops["looked at"] - each.score_drops[than] for each in self.trials], np.float32)

    def interval(self, than: str = "elsewhere") -> tuple[float, float]:
        margins = self.margins(than)
        if len(margins) < 2:
            return math.nan, math.nan
        resampled = np.random.default_rng(0).choice(margins, (_RESAMPLES, len(margins))).mean(1)
        low, high = np.quantile(resampled, (0.025, 0.975))
        return float(low), float(high)

    def table(self) -> str:
        """A line for each place, and what follows."""
        how = {"blur": "blurred", "mean": "painted in the picture's mean colour"}[self.hide]
        lines = [
            f"Hiding {self.share:.0%} of the box's area, {how}, of {counted(len(self.trials), 'detection')}: mean drop",
            f"{'hidden':<16}{'score':>8}{'IoU':>8}",
            *(f"{place:<16}{self.mean_drop(place):8.3f}{self.mean_drop(place, of='iou'):8.3f}" for place in PLACES),
        ]
        for than in ("elsewhere", "inside the box"):
            low, high = self.interval(than)
            said = "more" if low > 0 else "less" if high < 0 else "no clear difference"
            mean = float(self.margins(than).mean()) if self.trials else math.nan
            lines.append(f"looked at - {than}: {mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f} ({said})")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        drops = {place: {"score": self.mean_drop(place), "iou": self.mean_drop(place, of="iou")} for place in PLACES}
        margins = {
            than: {"mean": float(self.margins(than).mean()), "interval": list(self.interval(than))}
            for than in PLACES[1:]
        }
        return {
            "detections": len(self.trials),
            "share": self.share,
            "hide": self.hide,
            "draws": self.draws,
            "mean_drops": drops if self.trials else None,
            "looked_at_more_than": margins if len(self.trials) > 1 else None,
            "trials": [vars(each) for each in self.trials],
        }


def trials_of(
    image: Bands,
    found: Sequence[Explanation],
    answer: Answer,
    *,
    share: float = SHARE,
    hide: Hide = "blur",
    draws: int = DRAWS,
) -> list[Trial]:
    """Hide parts of a picture for each of its detections, all of the same area: `share` of that of its box.

    Hidden are the pixels with most of the map; the same shape at `draws` random places, as on a picture that goes on at
    its opposite edge; at the place farthest off; and a box within the detection's own, which needs no explanation at
    all. The map is the mean over the layers.
    """
    random = np.random.default_rng(0)
    cover = _cover(image, hide)
    [whole], trials = answer([image]), []
    for each in found:
        masks = _masks(each, image.shape[:2], share, draws, random)
        before, overlap = _left_of(each, *whole)
        rest = [
            _left_of(each, *said) for said in answer([np.where(mask[..., None], cover, image) for _, mask in masks])
        ]
        score_drops: dict[str, list[float]] = {place: [] for place in PLACES}
        iou_drops: dict[str, list[float]] = {place: [] for place in PLACES}
        for (place, _), (score, still) in zip(masks, rest, strict=True):
            score_drops[place].append(before - score)
            iou_drops[place].append(overlap - still)
        means = [{place: float(np.mean(drops[place])) for place in PLACES} for drops in (score_drops, iou_drops)]
        trials.append(Trial(each.name, before, *means))
    return trials


def _masks(
    explanation: Explanation, size: tuple[int, int], share: float, draws: int, random: np.random.Generator
) -> list[tuple[str, Mask]]:
    """Where to hide, [h, w] each of the same area."""
    height, width = size
    left, top, right, bottom = _within(explanation.box, size)
    area = min(max(1, round(share * (right - left) * (bottom - top))), height * width)
    looked = largest(explanation.map(size=size), area)
    moved = [(int(random.integers(height)), int(random.integers(width))) for _ in range(draws)]
    return [
        ("looked at", looked),
        *(("elsewhere", np.roll(looked, move, (0, 1))) for move in moved),
        ("far off", np.roll(looked, (height // 2, width // 2), (0, 1))),
        ("inside the box", _inner((left, top, right, bottom), area, size)),
    ]


def _inner(box: tuple[float, float, float, float], area: int, size: tuple[int, int]) -> Mask:
    """The `area` pixels nearest to the middle of a box, in its own proportions."""
    left, top, right, bottom = box
    y, x = np.indices(size, dtype=np.float32) + 0.5
    across = np.abs(x - (left + right) / 2) / max(right - left, 1e-6)
    down = np.abs(y - (top + bottom) / 2) / max(bottom - top, 1e-6)
    return largest(-np.maximum(across, down), area)


def _within(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, right = np.clip(box[0::2], 0, size[1]).tolist()
    top, bottom = np.clip(box[1::2], 0, size[0]).tolist()
    return left, top, right, bottom


def _cover(image: Bands, hide: Hide) -> Bands:
    """What hidden pixels are replaced by."""
    if hide == "mean":
        return np.broadcast_to(image.mean((0, 1)).round().astype(np.uint8), image.shape)
    radius = max(image.shape[:2]) / 16
    return band_by_band(image, lambda picture: picture.filter(ImageFilter.GaussianBlur(radius)))


def _left_of(explanation: Explanation, boxes: Tensor, scores: Tensor) -> tuple[float, float]:
    """The best score of its class among boxes of the same object, and the IoU of that one; 0 where there is none."""
    overlaps = iou(boxes, torch.tensor(explanation.box, dtype=boxes.dtype))[0]
    same = torch.where(overlaps >= _SAME_OBJECT, scores[:, explanation.label], -1.0)
    best = int(same.argmax())
    return (float(same[best]), float(overlaps[best])) if same[best] > 0 else (0.0, 0.0)
