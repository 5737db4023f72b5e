"""A picture looked at tile by tile, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from torch import Tensor

from detr.image import RGB, InputConfig, resized
from detr.records import Detections
from detr.runtime.ahead import ahead
from detr.slicing import Slicing, View, merged, views_of

Size = tuple[int, int]  # (height, width)
Look = Callable[[list[Tensor], list[Size]], list[Detections]]
"""Prepared pictures [3, h, w] of one size, and the sizes in which boxes are wanted -> what is in each, on the CPU."""


def find_in_tiles(image: RGB, slicing: Slicing, look: Look, *, input: InputConfig, most: int) -> Detections:
    """The `most` best of what is found in the tiles of a picture, and in the whole, in the picture's pixels."""
    size = image.shape[0], image.shape[1]
    views = views_of(*size, slicing)
    found: list[Detections] = []
    prepared = ahead(
        ((view, resized(image[view.top : view.bottom, view.left : view.right], input)) for view in views),
        depth=2 * slicing.batch,
    )
    with closing(prepared):
        for batch in _batches(prepared, slicing.batch):
            found += look([tensor for _, tensor in batch], [view.size for view, _ in batch])
    return merged(found, views, size=size, most=most, coarseness=[_coarseness(view, input) for view in views])


def _coarseness(view: View, input: InputConfig) -> float:
    """Pixels of the picture in one of the input."""
    (height, width), (input_height, input_width) = view.size, input.size_of(*view.size)
    return max(height / input_height, width / input_width)


def _batches(items: Iterable[tuple[View, Tensor]], most: int) -> Iterator[list[tuple[View, Tensor]]]:
    """So many at once, and only what needs no padding: the whole picture may have another aspect than the tiles."""
    batch: list[tuple[View, Tensor]] = []
    for item in items:
        if batch and (len(batch) == most or batch[-1][1].shape != item[1].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
