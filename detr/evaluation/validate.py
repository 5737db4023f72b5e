"""A model over a data set: what it finds, and how good that is; the same from one process or several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.coco import CocoDataset
from detr.data.loader import val_loader
from detr.errors import InputError, listed
from detr.evaluation.evaluate import Evaluator, evaluate
from detr.evaluation.metrics import Metrics
from detr.evaluation.predictions import DetectionArrays
from detr.image import InputConfig, as_input, padded
from detr.models.postprocess import select
from detr.patience import LONGEST
from detr.records import Batch, Detections, Output
from detr.runtime.ahead import ahead
from detr.runtime.distributed import gathered
from detr.runtime.progress import progress
from detr.runtime.runner import Runner
from detr.runtime.tiles import Look as LookAtTiles
from detr.runtime.tiles import find_in_tiles
from detr.slicing import Slicing

KEPT_PER_IMAGE = 300  # detections, over all classes, as in the official post-processing


class OtherClasses(InputError):
    """The data has classes that the model doesn't know; `table` shows which."""

    def __init__(self, message: str, table: str) -> None:
        super().__init__(message)
        self.table = table


class Left(Exception):
    """The evaluation was left before its end, by all processes."""


def validate(
    runner: Runner,
    dataset: CocoDataset,
    *,
    batch_size: int = 8,
    workers: int = 0,
    conf: float = 0.0,
    max_dets: int | Sequence[int] = (1, 10, 100),
    evaluator: Evaluator = "detr",
    input: InputConfig | None = None,
    slicing: Slicing | None = None,
    watch: Watch | None = None,
    quiet: bool = False,
    longest_wait: float = LONGEST,
    is_left: Callable[[], bool] = lambda: False,
) -> tuple[Metrics, DetectionArrays]:
    """Run over the data set and evaluate what is found.

    Under `torchrun` every process takes its share of the batches and all get the same answer, to the last bit: the
    batches are those of one process, and no image is seen twice. (On a CPU the last bits of a network also depend on
    the number of threads, which `torchrun` sets to one.) `batch_size` is that of one process; `input` overrides the
    model's own; with `slicing` each image is looked at in tiles. `watch` sees every answer of the network.
    An InputError ends the wait for a batch after `longest_wait` seconds (0: never). Left, in every process, once
    `is_left`, asked after each image, says so in one.

    The classes are matched by name; OtherClasses where the data has boxes of classes that the model
    doesn't know, InputError naming the image where an output is not finite.
    """
    annotations = dataset.annotations
    data_index, notes = matched_classes(runner.classes, annotations)
    most = max(KEPT_PER_IMAGE, max_dets if isinstance(max_dets, int) else max(max_dets, default=0))
    known = None if (data_index >= 0).all() else np.flatnonzero(data_index >= 0).tolist()
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    input = input or runner.config.input

    def look(images: Tensor, padding: Tensor | None, sizes: Sequence[tuple[int, int]], ids: Ids) -> list[Detections]:
        output = _finite(runner(as_input(images, padding, input), padding), ids)
        if watch is not None:
            watch(ids, sizes, output)
        return select(output, sizes, scoring=runner.scoring, conf=conf, max_det=most, classes=known)

    with torch.inference_mode():
        if slicing is None:
            loader = val_loader(
                dataset, input=input, batch_size=batch_size, workers=workers, rank=rank, world_size=size,
                longest_wait=longest_wait, pinned=runner.device.type == "cuda",
            )  # fmt: skip
            batches = progress(loader, total=len(loader), description="val", unit="batch", quiet=quiet or rank > 0)
            found = _in_batches(batches, look, runner.device)
        else:
            mine = range(rank, len(dataset), size)
            indices = progress(mine, total=len(mine), description="val", unit="image", quiet=quiet or rank > 0)
            found = _in_tiles(indices, dataset.in_channels(input.channels), look, runner.device, slicing, input, most)
        image_index = {id: index for index, id in enumerate(annotations.image_ids)}
        parts = []
        with closing(found):
            for id, one in found:
                parts.append(_part(image_index[id], one, data_index))
                if is_left():
                    break
    detections = _together(parts, is_left(), annotations, notes)
    return evaluate(annotations, detections, max_dets=max_dets, evaluator=evaluator), detections


Ids = Sequence[int | str]
Watch = Callable[[Ids, Sequence[tuple[int, int]], Output], None]
Look = Callable[[Tensor, Tensor | None, Sequence[tuple[int, int]], Ids], list[Detections]]
"""Images and padding, the (height, width) in which boxes are wanted, and what errors call them -> what is in each."""


Found = Generator[tuple[int | str, Detections], None, None]


def _in_batches(batches: Iterable[Batch], look: Look, device: torch.device) -> Found:
    for batch in batches:
        batch = batch.to(device, non_blocking=True)
        ids = [target.image_id for target in batch.targets]
        yield from zip(ids, look(batch.images, batch.padding, [t.size for t in batch.targets], ids), strict=True)


def _in_tiles(
    indices: Iterable[int],
    dataset: CocoDataset,
    look: Look,
    device: torch.device,
    slicing: Slicing,
    input: InputConfig,
    most: int,
) -> Found:
    """Image by image, as one may be larger than any batch; the next is read meanwhile."""

    with closing(ahead((dataset[index] for index in indices), depth=1)) as samples:
        for sample in samples:
            image = sample.image.permute(1, 2, 0).contiguous().numpy()
            look_at = _at_tiles(look, device, sample.image_id)
            yield sample.image_id, find_in_tiles(image, slicing, look_at, input=input, most=most)


def _at_tiles(look: Look, device: torch.device, id: int | str) -> LookAtTiles:
    def look_at(tiles: list[Tensor], sizes: list[tuple[int, int]]) -> list[Detections]:
        images, padding = padded(tiles)
        found = look(images.to(device), None if padding is None else padding.to(device), sizes, [id] * len(tiles))
        return [Detections(one.boxes.cpu(), one.scores.cpu(), one.labels.cpu()) for one in found]

    return look_at


def matched_classes(model: Classes, annotations: Annotations) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """[C] the data's class index for each of the model's classes, by name, and what the reader should know of it.

    -1 where the data has no such class. Weights that name no classes are matched by position if the number is right.
    """
    data = annotations.classes
    if len(model) == len(data) and not model.are_named:
        note = "the weights do not name their classes; they are taken in the order of the data's categories"
        return np.arange(len(model)), (note,) if model.names != data.names else ()
    by_name = model.matches_by_name(data)
    missing = sorted(set(np.unique(annotations.labels).tolist()) - set(by_name.values()))
    if missing:
        counts = np.bincount(annotations.labels, minlength=len(data)).tolist()
        some = listed([repr(data.names[k]) for k in missing], 3)
        raise OtherClasses(
            f"{len(missing)} of the data's {len(data)} classes are unknown to the model by name: {some}; "
            "use weights trained on these classes, or give the data's categories the model's names",
            f"classes of the data\n{data.table(counts)}\n\nclasses of the model\n{model.table()}",
        )
    others = len(model) - len(by_name)
    notes = (f"{others} of the model's {len(model)} classes are not in the data and were left out",) if others else ()
    return np.array([by_name.get(k, -1) for k in range(len(model))], dtype=np.int64), notes


_Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
_NOTHING: _Part = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4)), np.empty(0))


def _finite(output: Output, ids: Ids) -> Output:
    """The output; InputError where a number of it isn't finite."""
    last = output.layers[-1]
    finite = _finite_rows(last.logits) & _finite_rows(last.boxes)
    if not finite.all():
        image = ids[int(finite.logical_not().nonzero()[0])]
        raise InputError(f"the network's output for image {image!r} is not finite: its weights are damaged or diverged")
    return output


def _finite_rows(values: Tensor) -> Tensor:
    """[B, ...] -> [B]"""
    return values.isfinite().flatten(1).all(1)


def _part(image_index: int, found: Detections, data_index: NDArray[np.int64]) -> _Part:
    """One image's detections: image indices, the data's labels, boxes xywh, scores."""
    corners = found.boxes.cpu()
    # In float32, as the official tools do, so that a results file has the same digits.
    boxes = torch.cat((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
    labels = data_index[found.labels.cpu().numpy()]
    scores = found.scores.cpu().numpy().astype(np.float64)
    return np.full(len(scores), image_index), labels, boxes.numpy().astype(np.float64), scores


def _together(parts: list[_Part], is_left: bool, annotations: Annotations, notes: tuple[str, ...]) -> DetectionArrays:
    """The detections of all processes, in canonical order; Left where one of them has left."""
    shares = gathered((parts, is_left), "its share of the validation is done")
    if any(left for _, left in shares):
        raise Left
    parts = [part for share, _ in shares for part in share]
    images, labels, boxes, scores = (np.concatenate(column) for column in zip(_NOTHING, *parts, strict=True))
    return DetectionArrays(annotations.image_ids, images, labels, boxes, scores, notes).canonical()
