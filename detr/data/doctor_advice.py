"""What a data set asks of a model and of its training, in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr.data.doctor_boxes import SMALLEST, input_sides
from detr.data.doctor_images import Seen
from detr.errors import counted
from detr.image import STRIDE, InputConfig

_LARGEST = 1280  # sides beyond which slicing costs less than a larger input: attention grows faster than the image
_SMALL_SET = 10_000  # images, below which published schedules from fresh heads are far too long
_ENOUGH = 0.95  # of the boxes


@dataclass(frozen=True)
class Plan:
    """The training that is meant."""

    model: str
    input: InputConfig
    queries: int
    batch: int  # of the recipe, for which its learning rate is
    batch_finetune: int  # of --finetune
    lr: float


def advice(seen: Sequence[Seen], plan: Plan) -> Iterator[str]:
    """Lines of advice, with the numbers behind them."""
    yield from _on_size(seen, plan)
    yield from _on_queries(seen, plan)
    yield from _on_aspects(seen, plan)
    train = next((each for each in seen if each.split == "train"), seen[0])
    yield from _on_length(len(train.paths), plan)


def _on_size(seen: Sequence[Seen], plan: Plan) -> Iterator[str]:
    sides = np.concatenate([input_sides(each, plan.input)[~each.annotations.crowd] for each in seen])
    sides = sides[np.isfinite(sides)]
    if not len(sides):
        return
    height, width = plan.input.frame
    low, middle, high = np.quantile(sides, (0.05, 0.5, 0.95))
    yield (
        f"size: at {width} x {height} boxes are {low:.0f} (5 %), {middle:.0f} (half of them) and {high:.0f} (95 %) "
        "pixels, as the side of a square"
    )
    if low >= SMALLEST:
        return
    share = float((sides < SMALLEST).mean())
    longer = max(plan.input.frame)
    factor = SMALLEST / max(low, 1e-6)
    imgsz = int(np.ceil(min(plan.input.frame) * factor / STRIDE)) * STRIDE
    what = f"{share:.0%} of the boxes are smaller than {SMALLEST} x {SMALLEST} pixels there, one position of stride 8"
    if longer * factor <= _LARGEST:
        yield f"size: {what}; with --imgsz {imgsz} it would be 5 %"
    else:
        tile = max(1, round(_middle_size(seen).max() / factor))
        yield f"size: {what}; instead of an input of {imgsz}, cut images into tiles of some {tile} pixels"


def _on_queries(seen: Sequence[Seen], plan: Plan) -> Iterator[str]:
    objects = np.concatenate([_objects(each) for each in seen])
    most = int(objects.max(initial=0))
    mean = float(objects.mean())
    yield f"queries: {mean:.1f} objects an image, {most} at most; {plan.model} has {plan.queries} queries"
    if most > plan.queries:
        yield f"queries: model.num_queries={int(np.ceil(most * 1.2 / 50)) * 50} would leave a fifth to spare"
    elif most * 10 <= plan.queries and most:
        fewer = max(50, int(np.ceil(most * 2 / 50)) * 50)
        if fewer < plan.queries:
            yield f"queries: --queries {fewer} may do in prediction; detr benchmark --sweep queries tells"
    if most > 100:
        crowded = int((objects > 100).sum())
        what = counted(crowded, "image has", "images have")
        yield f"evaluation: {what} more than 100 objects, of which COCO's AP counts 100: --max-dets"


def _on_aspects(seen: Sequence[Seen], plan: Plan) -> Iterator[str]:
    sizes = _known_sizes(seen)
    if not len(sizes):
        return
    height, width = _middle_size(seen)
    kinds = len({tuple(size) for size in sizes.tolist()})
    yield f"images: {counted(kinds, 'size')}, {width:.0f} x {height:.0f} in the middle"
    aspects = sizes[:, 1] / sizes[:, 0]
    own = plan.input.frame[1] / plan.input.frame[0]
    stretched = float(np.median(np.maximum(aspects / own, own / aspects)))
    if not plan.input.keeps_aspect and stretched >= 1.5:
        side = max(plan.input.frame)
        sides = (side, _multiple(side * height / width)) if width > height else (_multiple(side * width / height), side)
        yield (
            f"images: half of them are stretched {stretched:.1f} times in one direction; an input of their own aspect: "
            f"model.input.width={sides[0]} model.input.height={sides[1]}"
        )


def _on_length(count: int, plan: Plan) -> Iterator[str]:
    if count < _SMALL_SET:
        steps = max(1, count // plan.batch_finetune)
        yield (
            f"training: with {counted(count, 'image')} start from weights, and with --finetune; its batch of "
            f"{plan.batch_finetune} makes {counted(steps, 'step')} an epoch"
        )
    else:
        each = counted(count // plan.batch, "step")
        yield f"training: {count:,} images are {each} an epoch with a batch of {plan.batch}"
    yield (
        f"training: the recipe's learning rate of {plan.lr:g} is for a batch of {plan.batch}, with --finetune for all "
        f"from {plan.batch_finetune} to that; for others it is scaled"
    )


def _objects(seen: Seen) -> NDArray[np.int64]:
    known = seen.annotations
    return np.bincount(known.image_indices[~known.crowd], minlength=len(seen.paths))


def _known_sizes(seen: Sequence[Seen]) -> NDArray[np.int64]:
    """[I, 2] height and width of all images that say it."""
    sizes = np.concatenate([each.sizes for each in seen])
    return sizes[(sizes > 0).all(1)]


def _middle_size(seen: Sequence[Seen]) -> NDArray[np.float64]:
    """(height, width), each the median."""
    return np.median(_known_sizes(seen), 0)


def _multiple(side: float) -> int:
    return max(STRIDE, round(side / STRIDE) * STRIDE)
