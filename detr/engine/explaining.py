"""What a detector's detections looked at: one pass, recorded as it happens."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detr.bands import Bands
from detr.boxes import cxcywh_to_xyxy
from detr.errors import InputError, UsageError
from detr.explain import Explanation, explanations, recording
from detr.explain.place import Asked, ask
from detr.image import InputConfig, as_input, resized
from detr.records import Detections
from detr.runtime.runner import TorchRunner
from detr.runtime.settings import Settings, class_indices
from detr.slicing import Slicing, views_of
from detr.video import Frame, Source

if TYPE_CHECKING:
    from detr.engine.finder import Finder
    from detr.engine.results import Results


def explain(
    detector: Finder, frame: Frame, settings: Settings, *, longest: int | None = None
) -> tuple[Results, list[Explanation]]:
    """What is found in a picture, just as without explaining, and what each of it looked at.

    longest: pixels of a side that the explanations' picture has at most, as to draw on a large one takes seconds.
    UsageError for a detector that can't be looked into: an exported file, or a compiled network.
    """
    runner = runner_of(detector, settings)
    with recording(runner.network) as recorded:
        [result] = detector.results([frame], settings)
    picture, found = result.image, _as_found(result)
    if longest is not None and max(picture.shape[:2]) > longest:
        picture, found = _reduced(picture, found, longest)
    return result, explanations(recorded, detector.network, picture, found, result.names)


def explain_place(
    detector: Finder, frame: Frame, settings: Settings, box: Sequence[float]
) -> tuple[Results, Asked, list[Explanation]]:
    """What became of a place of a picture, and what the queries nearest to it looked at.

    box: x1, y1, x2, y2 in pixels, or as shares of the picture where none is over 1. InputError where it lies outside.
    """
    with recording(runner_of(detector, settings).network) as recorded:
        [result] = detector.results([frame], settings)
    height, width = result.image.shape[:2]
    if max(box) <= 1:
        box = [share * side for share, side in zip(box, (width, height) * 2, strict=True)]
    if box[2] > width or box[3] > height:
        raise InputError(f"the place lies outside of the picture, which is {width} x {height}")
    least = settings.by_class or (settings.conf,) * len(result.names)
    image, names, classes = result.image, result.names, settings.classes
    return result, *ask(recorded, detector.network, image, box, names, classes=classes, least=least)


def runner_of(detector: Finder, settings: Settings) -> TorchRunner:
    runner = detector.runner(half=settings.half)
    if not isinstance(runner, TorchRunner):
        raise UsageError(f"{runner.name} gives its answer only; explain the weights that it was exported from")
    if runner.compile:
        raise UsageError("a compiled network can't be looked into; explain without compile")
    return runner


def answering(detector: Finder, settings: Settings) -> Callable[[Sequence[Bands]], list[tuple[Tensor, Tensor]]]:
    """Pictures of one size -> all that the network says of each: boxes [Q, 4] xyxy in pixels, and scores [Q, C]."""
    runner = runner_of(detector, settings)

    @torch.inference_mode()
    def answer(pictures: Sequence[Bands]) -> list[tuple[Tensor, Tensor]]:
        images = torch.stack([resized(picture, settings.input) for picture in pictures]).to(runner.device)
        last = runner(as_input(images, None, settings.input)).layers[-1]
        height, width = pictures[0].shape[:2]
        boxes = cxcywh_to_xyxy(last.boxes) * last.boxes.new_tensor([width, height, width, height])
        return list(zip(boxes.cpu(), runner.scoring(last.logits).cpu(), strict=True))

    return answer


class Explainer:
    """Who found a result, and how it was asked: as long as that detector lives. It doesn't keep it alive."""

    def __init__(self, detector: Finder | None, settings: Settings) -> None:
        self._detector: Callable[[], Finder | None] = _nobody if detector is None else weakref.ref(detector)
        self._settings = settings

    def __call__(self, result: Results, index: int) -> Explanation:
        detector = self._known()
        if not -len(result) <= index < len(result):
            raise UsageError(f"detection {index}: there are {len(result)}, counted from 0")
        whole = replace(self._settings, slicing=None)
        with recording(runner_of(detector, whole).network) as recorded:
            list(detector.results([_frame_of(result)], whole))
        chosen = _as_found(result[index])
        try:
            [explanation] = explanations(recorded, detector.network, result.image, chosen, result.names)
        except InputError:
            if self._settings.slicing is None:
                raise
            raise InputError(_where_to_look(result, chosen, self._settings.slicing)) from None
        return explanation

    def place(
        self, result: Results, box: Sequence[float], classes: Sequence[int | str] | int | str | None
    ) -> tuple[Asked, list[Explanation]]:
        detector = self._known()
        wanted = self._settings.classes if classes is None else class_indices(classes, detector.classes)
        settings = replace(self._settings, slicing=None, classes=wanted)
        _, asked, nearest = explain_place(detector, _frame_of(result), settings, box)
        return asked, nearest

    def _known(self) -> Finder:
        detector = self._detector()
        if detector is None:
            raise InputError(
                "the detector that found this is gone, and with it what would explain it; keep it in a variable"
            )
        return detector

    def __reduce__(self) -> Any:
        """A copy that travels to another process knows nobody there."""
        return Explainer, (None, self._settings)


def _frame_of(result: Results) -> Frame:
    return Frame(result.image, Source("image", result.path))


def _where_to_look(result: Results, chosen: Detections, slicing: Slicing) -> str:
    """The way to an explanation of what a part of the picture shows: that of the tile whose middle is nearest."""
    left, top, right, bottom = chosen.boxes[0].tolist()
    height, width = result.image.shape[:2]
    tiles = [view for view in views_of(height, width, slicing) if view.size != (height, width)]
    tile = min(tiles, key=lambda view: math.dist(
        (view.left + view.right, view.top + view.bottom), (left + right, top + bottom)
    ))  # fmt: skip
    part = f"result.image[{tile.top}:{tile.bottom}, {tile.left}:{tile.right}]"
    return (
        f"this was found in a tile, and not in the whole picture; explain it there: "
        f'[part] = model({part}, channels="rgb"), then part.explain(index)'
    )


def _reduced(picture: Bands, found: Detections, longest: int) -> tuple[Bands, Detections]:
    """The same, smaller, with its boxes."""
    height, width = picture.shape[:2]
    factor = longest / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    scale = found.boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    config = InputConfig(height=size[0], width=size[1], channels=picture.shape[2])
    return resized(picture, config).permute(1, 2, 0).numpy(), replace(found, boxes=found.boxes * scale)


def _as_found(result: Results) -> Detections:
    """With boxes that are not clipped to the picture."""
    found = result.detections
    return found if result.as_found is None else Detections(result.as_found, found.scores, found.labels)


def _nobody() -> None:
    return None
