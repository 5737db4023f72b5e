"""A model over a data set: what it finds, and how good that is; the same from one process or several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from detr.classes import Classes
from detr.data.annotations import Annotations
from detr.data.coco import CocoDataset
from detr.data.loader import val_loader
from detr.engine.evaluate import Evaluator, evaluate
from detr.engine.metrics import Metrics
from detr.engine.predictions import DetectionArrays
from detr.engine.progress import progress
from detr.engine.runner import Runner
from detr.errors import InputError, listed
from detr.image import InputConfig, as_input
from detr.models.postprocess import select
from detr.records import Batch, Detections, Output

KEPT_PER_IMAGE = 300  # detections, over all classes, as in the official post-processing


class OtherClasses(InputError):
    """The data has classes that the model doesn't know; `table` shows which."""

    def __init__(self, message: str, table: str) -> None:
        super().__init__(message)
        self.table = table


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
    quiet: bool = False,
) -> tuple[Metrics, DetectionArrays]:
    """Run over the data set and evaluate what is found.

    Under `torchrun` every process takes its share of the batches and all get the same answer, to the last bit: the
    batches are those of one process, and no image is seen twice. (On a CPU the last bits of a network also depend on
    the number of threads, which `torchrun` sets to one.) `batch_size` is that of one process; `input` overrides the
    model's own. The classes are matched by name; OtherClasses where the data has boxes of classes that the model
    doesn't know, InputError naming the image where an output is not finite.
    """
    annotations = dataset.annotations
    data_index, notes = matched_classes(runner.classes, annotations)
    most = max(KEPT_PER_IMAGE, max_dets if isinstance(max_dets, int) else max(max_dets, default=0))
    known = None if (data_index >= 0).all() else np.flatnonzero(data_index >= 0).tolist()
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    input = input or runner.config.input
    loader = val_loader(
        dataset,
        input=input,
        batch_size=batch_size,
        workers=workers,
        rank=rank,
        world_size=size,
    )
    image_index = {id: index for index, id in enumerate(annotations.image_ids)}
    parts: list[_Part] = []
    with torch.inference_mode():
        for batch in progress(loader, total=len(loader), description="val", unit="batch", quiet=quiet or rank > 0):
            batch = batch.to(runner.device, non_blocking=True)
            output = runner(as_input(batch.images, batch.padding, input), batch.padding)
            found = select(
                _finite(output, batch),
                [target.size for target in batch.targets],
                scoring=runner.scoring,
                conf=conf,
                max_det=most,
                classes=known,
            )
            for target, one in zip(batch.targets, found, strict=True):
                parts.append(_part(image_index[target.image_id], one, data_index))
    detections = _gathered(parts, annotations, notes, size)
    return evaluate(annotations, detections, max_dets=max_dets, evaluator=evaluator), detections


def matched_classes(model: Classes, annotations: Annotations) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """[C] the data's class index for each of the model's classes, by name, and what the reader should know of it.

    -1 where the data has no such class. Weights that name no classes are matched by position if the number is right.
    """
    data = annotations.classes
    if len(model) == len(data) and model.names == tuple(f"class_{index}" for index in range(len(model))):
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


def _finite(output: Output, batch: Batch) -> Output:
    """The output; InputError where a number of it isn't finite."""
    last = output.layers[-1]
    finite = _finite_rows(last.logits) & _finite_rows(last.boxes)
    if not finite.all():
        image = batch.targets[int(finite.logical_not().nonzero()[0])].image_id
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


def _gathered(parts: list[_Part], annotations: Annotations, notes: tuple[str, ...], size: int) -> DetectionArrays:
    """The detections of all processes, in canonical order."""
    if size > 1:
        shares: list[list[_Part]] = [[] for _ in range(size)]
        dist.all_gather_object(shares, parts)
        parts = [part for share in shares for part in share]
    images, labels, boxes, scores = (np.concatenate(column) for column in zip(_NOTHING, *parts, strict=True))
    return DetectionArrays(annotations.image_ids, images, labels, boxes, scores, notes).canonical()
