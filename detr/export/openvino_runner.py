"""An exported file as a `Runner`, by OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr.errors import InputError
from detr.export.about import KEY, About, about_from
from detr.export.feeding import fed
from detr.export.packages import package
from detr.export.to_openvino import said_by
from detr.records import Output, Predictions

_MOST_SIZES = 4  # of batches, compiled at a time


class OpenVINORunner:
    """Runs an `.xml` with its `.bin`, or an `.onnx`, on the CPU; each number of images is compiled for once.

    As many threads as PyTorch has where `threads` is not given. `half` computes in bfloat16 where the processor can,
    else everything that isn't int8 in float32.
    """

    def __init__(self, path: Path, *, threads: int | None = None, half: bool = False) -> None:
        openvino = package("openvino")
        self.half = half
        self._core = openvino.Core()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        }
        try:
            self._model: Any = self._core.read_model(path)
        except RuntimeError as problem:
            raise InputError(f"{path} can't be read by OpenVINO: {' '.join(str(problem).split())}") from None
        self.about: About = about_from(_said(self._model, path), path)
        self.config, self.classes, self.scoring = self.about.config, self.about.classes, self.about.scoring
        self.device = torch.device("cpu")
        self._requests: dict[int, Any] = {}

    @property
    def name(self) -> str:
        number = "bfloat16" if self.half else "float32"
        return f"openvino {f'int8, {number}' if self.about.int8 else number}"

    def __call__(self, images: Tensor, padding: Tensor | None = None) -> Output:
        request = self._request(len(images))
        request.infer(fed(self.about, images, padding), share_inputs=True)
        # The request's own memory is written over by the next images.
        logits, boxes = (torch.from_numpy(request.get_tensor(name).data.copy()) for name in ("logits", "boxes"))
        return Output((Predictions(logits, boxes),))

    def _request(self, batch: int) -> Any:
        """Static shapes are faster than leaving the number of images open."""
        if batch not in self._requests:
            if len(self._requests) == _MOST_SIZES:
                del self._requests[next(iter(self._requests))]
            self._model.reshape({each: [batch, *each.partial_shape[1:]] for each in self._model.inputs})
            self._requests[batch] = self._core.compile_model(self._model, "CPU", self._settings).create_infer_request()
        return self._requests[batch]


def _said(model: Any, path: Path) -> str | None:
    if path.suffix != ".onnx":
        return said_by(model)
    place = ["framework", KEY]  # where OpenVINO puts the metadata of an ONNX file
    return model.get_rt_info(place).astype(str) if model.has_rt_info(place) else None
