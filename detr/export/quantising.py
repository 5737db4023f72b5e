"""8-bit networks: what the numbers are on real images decides how they are rounded, after training (NNCF)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detr.archives import state_of
from detr.errors import InputError
from detr.export.about import About
from detr.export.feeding import fed
from detr.export.packages import package
from detr.image import normalise

if TYPE_CHECKING:
    from detr.data.coco import CocoDataset

_IN_FLOAT = (r"^queries\..*", r"^decoder\..*")
"""Nodes by their module. Which positions become queries, and where the boxes lie, is decided by differences that 8 bits
don't show; backbone and encoder, rounded, are nearly all of the gain in time."""
_IN_FLOAT_OF = {"hgnetv2": (r"^backbone\.stem\..*", r"^backbone\.stages\.[01]\..*")}
"""The same of some kinds of backbone: narrow first stages, whose channels differ much in size."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images that are like those to come; their boxes don't matter."""

    dataset: CocoDataset
    most: int = 300  # of its images, evenly spread

    def __post_init__(self) -> None:
        if not len(self.dataset):
            raise InputError("int8 needs images to calibrate with; the data set has none")

    @property
    def indices(self) -> list[int]:
        count = min(self.most, len(self.dataset))
        return np.linspace(0, len(self.dataset) - 1, count).round().astype(int).tolist()

    @property
    def key(self) -> str:
        """Differs where the images do: by their names, sizes and times of change."""
        return repr([state_of(self.dataset.file(index)) for index in self.indices])

    def feeds(self, about: About) -> Iterator[dict[str, NDArray[Any]]]:
        from detr.data.transforms import to_network

        dataset = self.dataset.in_channels(about.config.input.channels)
        for index in self.indices:
            image, _ = to_network(dataset[index], about.config.input)
            yield fed(about, normalise(image[None], about.config.input), None)


def quantised(model: Any, about: About, calibration: Calibration) -> Any:
    """An ONNX or OpenVINO model with 8 bits where they do no harm."""
    nncf = package("nncf")
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    ranges = RangeEstimatorParametersSet.MEAN_MINMAX  # one picture's outlier doesn't make all steps coarse
    advanced = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    feeds = list(calibration.feeds(about))
    patterns = [*_IN_FLOAT, *_IN_FLOAT_OF.get(about.config.backbone.kind, ())]
    with redirect_stdout(sys.stderr):  # its progress is not an answer
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=_grouped(model), patterns=patterns, validate=False),
            advanced_parameters=advanced,
        )


def _grouped(model: Any) -> list[str]:
    """The convolutions by groups of channels: little work, and a range of their own for each channel."""
    if hasattr(model, "get_ops"):
        return [each.get_friendly_name() for each in model.get_ops() if each.get_type_name() == "GroupConvolution"]
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(each.name == "group" and each.i > 1 for each in node.attribute)
    ]
