"""The boxes of one image with their scores and classes, in the shape that users of other detectors know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr.boxes import xyxy_to_cxcywh

Values: TypeAlias = Tensor | NDArray[Any]
Index: TypeAlias = int | slice | list[int] | Tensor | NDArray[Any]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one image, best first. Tensors, or arrays after `.numpy()`."""

    data: Values  # [N, 6] x1 y1 x2 y2 conf cls in pixels; [N, 7] with the track before conf
    orig_shape: tuple[int, int]  # (height, width) of the image

    @property
    def xyxy(self) -> Values:
        """[N, 4] corners in pixels."""
        return self.data[:, :4]

    @property
    def xywh(self) -> Values:
        """[N, 4] centre and size in pixels."""
        if isinstance(self.data, Tensor):
            return xyxy_to_cxcywh(self.data[:, :4])
        return xyxy_to_cxcywh(torch.from_numpy(self.data[:, :4])).numpy()

    @property
    def xyxyn(self) -> Values:
        """[N, 4] corners as shares of the image."""
        return self.xyxy / self._sizes()

    @property
    def xywhn(self) -> Values:
        """[N, 4] centre and size as shares of the image."""
        return self.xywh / self._sizes()

    @property
    def conf(self) -> Values:
        """[N] scores in [0, 1]."""
        return self.data[:, -2]

    @property
    def cls(self) -> Values:
        """[N] class indices, as floats."""
        return self.data[:, -1]

    @property
    def id(self) -> Values | None:
        """[N] tracks, as floats; None where nothing was tracked."""
        return self.data[:, 4] if self.is_track else None

    @property
    def is_track(self) -> bool:
        """Whether the boxes have track ids."""
        return self.data.shape[1] == 7

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `data`."""
        return tuple(self.data.shape)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Index) -> Boxes:
        data = self.data[index]
        return Boxes(data[None] if data.ndim == 1 else data, self.orig_shape)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[index] for index in range(len(self)))

    def to(self, *args: Any, **options: Any) -> Boxes:
        """The same, as `Tensor.to` has it."""
        return Boxes(torch.as_tensor(self.data).to(*args, **options), self.orig_shape)

    def cpu(self) -> Boxes:
        """The same on the CPU."""
        return Boxes(self.data.cpu() if isinstance(self.data, Tensor) else self.data, self.orig_shape)

    def cuda(self) -> Boxes:
        """The same on the GPU."""
        return self.to("cuda")

    def numpy(self) -> Boxes:
        """The same as arrays."""
        return Boxes(self.data.cpu().numpy() if isinstance(self.data, Tensor) else self.data, self.orig_shape)

    def _sizes(self) -> Any:
        height, width = self.orig_shape
        sizes = (width, height, width, height)
        return self.data.new_tensor(sizes) if isinstance(self.data, Tensor) else np.array(sizes, self.data.dtype)
