"""From frames to what is in them: each prepared, looked at in one pass or tile by tile, and told as `Results`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from detr.bands import shown
from detr.engine.explaining import Explainer
from detr.engine.results import Results
from detr.errors import InputError
from detr.image import RGB, as_input, padded, resized
from detr.models.postprocess import select
from detr.records import Detections
from detr.runtime.ahead import ahead
from detr.runtime.settings import Settings
from detr.runtime.tiles import find_in_tiles
from detr.slicing import Slicing
from detr.video import Frame

if TYPE_CHECKING:
    from detr.engine.finder import Finder


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame and what the network sees of it."""

    frame: Frame
    tensor: Tensor | None  # [C, h, w] uint8; None where it is sliced
    milliseconds: float  # to prepare it


def prepare(frame: Frame, settings: Settings) -> Prepared:
    """The frame as the network takes it; what is sliced is prepared tile by tile later, to keep memory small."""
    if settings.slicing is not None:
        return Prepared(frame, None, 0.0)
    start = time.perf_counter()
    tensor = resized(frame.image, settings.input)
    return Prepared(frame, tensor, 1000 * (time.perf_counter() - start))


def results(finder: Finder, pictures: Iterable[Frame], settings: Settings, *, batch: int = 1) -> Iterator[Results]:
    """A result for each frame, in order. Reading and preparing run ahead in a thread."""
    batch = settings.frames_at_once(batch)
    items = ahead((prepare(frame, settings) for frame in pictures), depth=2 * batch)
    group: list[Prepared] = []
    try:
        for item in items:
            group.append(item)
            if len(group) == batch:
                yield from finder.detect(group, settings)
                group = []
        if group:
            yield from finder.detect(group, settings)
    finally:
        items.close()


@torch.inference_mode()
def detect(finder: Finder, group: Sequence[Prepared], settings: Settings) -> list[Results]:
    """One pass of the network; images of different size are padded. InputError where it answers with NaN."""
    if settings.slicing is not None:
        return [_sliced(finder, item, settings, settings.slicing) for item in group]
    sizes = [(item.frame.image.shape[0], item.frame.image.shape[1]) for item in group]
    watch = _Watch()
    found = _look(finder, [cast(Tensor, item.tensor) for item in group], sizes, settings, watch)
    shares = watch.shares(len(group))
    return [_result(finder, item, *one, shares, settings) for item, one in zip(group, found, strict=True)]


def _sliced(finder: Finder, item: Prepared, settings: Settings, slicing: Slicing) -> Results:
    start, watch = time.perf_counter(), _Watch()
    best_scores: list[float] = []

    def look(images: list[Tensor], sizes: list[tuple[int, int]]) -> list[Detections]:
        seen = _look(finder, images, sizes, settings, watch)
        best_scores.extend(best for _, best in seen)
        return [found for found, _ in seen]

    found = find_in_tiles(item.frame.image, slicing, look, input=settings.input, most=settings.max_det)
    watch.postprocess += 1000 * (time.perf_counter() - start) - watch.inference - watch.postprocess
    return _result(finder, item, found, max(best_scores), watch.shares(1), settings)


@dataclass(eq=False)
class _Watch:
    """Milliseconds that went by."""

    inference: float = 0.0
    postprocess: float = 0.0

    def shares(self, count: int) -> dict[str, float]:
        return {"inference": self.inference / count, "postprocess": self.postprocess / count}


def _look(
    finder: Finder, images: list[Tensor], sizes: list[tuple[int, int]], settings: Settings, watch: _Watch
) -> list[tuple[Detections, float]]:
    """What is in each image, in the pixels of its size, on the CPU, with the best score there, kept or not."""
    start = time.perf_counter()
    batch, padding = padded(images)
    runner = finder.runner(half=settings.half)
    output = runner(as_input(batch.to(runner.device, non_blocking=True), padding, settings.input), padding)
    last = output.layers[-1]
    if not bool(torch.isfinite(last.logits).all() & torch.isfinite(last.boxes).all()):
        advice = "; try it without half" if settings.half else ": its weights are damaged"
        raise InputError(f"{finder.source} answers with numbers that are none (NaN){advice}")
    middle = time.perf_counter()
    found = select(
        output,
        sizes,
        scoring=runner.scoring,
        max_det=settings.max_det,
        classes=settings.classes,
    )
    here = [Detections(one.boxes.cpu(), one.scores.cpu(), one.labels.cpu()) for one in found]
    kept = [(settings.kept(one), max(one.scores.tolist(), default=0.0)) for one in here]
    watch.inference += 1000 * (middle - start)
    watch.postprocess += 1000 * (time.perf_counter() - middle)
    return kept


def _result(
    finder: Finder,
    item: Prepared,
    found: Detections,
    best_score: float,
    speed: dict[str, float],
    settings: Settings,
) -> Results:
    result = Results.of(
        shown(item.frame.image),
        _inside(found, item.frame.image),
        path=item.frame.path,
        names=finder.names,
        speed={"preprocess": item.milliseconds, **speed},
        frame=item.frame.index,
        time=item.frame.time,
        as_found=found.boxes,
        explainer=Explainer(finder, settings),
    )
    return replace(result, best_score=best_score)


def _inside(found: Detections, image: RGB) -> Detections:
    """Clipped to the image."""
    height, width = image.shape[:2]
    limits = found.boxes.new_tensor((width, height, width, height))
    return Detections(found.boxes.clamp(min=0).minimum(limits), found.scores, found.labels)
