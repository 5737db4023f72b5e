"""What `detr export` and `Detector.export` are asked for, and the proven files that come of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr.data.opening import open_split
from detr.data.sources import find_split
from detr.evaluation.validate import matched_classes
from detr.export import USUAL, Building, Form, form_for, require_format
from detr.export.proven import calibration_of, path_for, write_proven
from detr.files import require_writable
from detr.models import Network


@dataclass(frozen=True, kw_only=True)
class Order:
    """Files that are wanted of a network; UsageError for what can't go together."""

    formats: Sequence[str]
    out: Path | None = None  # a file, or a folder; the current one where none is said
    half: bool = False
    calibrate: str | os.PathLike[str] | None = None  # the data set that 8 bits are fitted to
    preprocessing: bool = False
    max_det: int | None = None
    open_batch: bool = True
    open_size: bool | None = None  # None: where the model keeps the aspect of pictures
    building: Building = USUAL
    verify: bool = True
    data: str | os.PathLike[str] | None = None  # to verify with, else generated pictures
    split: str = "val"
    images: Path | None = None
    most: int = 64  # pictures to compare

    def __post_init__(self) -> None:
        for format in self.formats:
            require_format(format, int8=self.calibrate is not None)
        self._form(bool(self.open_size))

    def paths(self, source: str) -> dict[str, Path]:
        """The file of each format, of weights that are called `source`. InputError where it can't be written."""
        int8 = self.calibrate is not None
        paths = {format: path_for(source, format, self.out, half=self.half, int8=int8) for format in self.formats}
        for path in paths.values():
            require_writable(path.parent)
        return paths

    def form(self, network: Network) -> Form:
        open_size = form_for(network).open_size and not self.preprocessing
        return self._form(open_size if self.open_size is None else self.open_size)

    def _form(self, open_size: bool) -> Form:
        return Form(self.preprocessing, self.max_det, self.open_batch, open_size, self.half)


def fill(order: Order, network: Network, source: str, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Write and prove the files (see `write_proven`) -> the report of each.

    InputError before anything is written where the data's classes are others than the network's.
    """
    dataset = None if order.data is None else open_split(find_split(order.data, order.split, images=order.images))
    if dataset is not None and order.verify:
        matched_classes(network.classes, dataset.annotations)
    return [
        write_proven(
            format,
            network,
            path,
            form=order.form(network),
            calibration=None if order.calibrate is None else calibration_of(order.calibrate),
            building=order.building,
            verify=order.verify,
            dataset=dataset,
            called="generated pictures" if order.data is None else os.fspath(order.data),
            most=order.most,
            say=say,
        )
        for format, path in order.paths(source).items()
    ]
