"""An exported file as a `Runner`, by OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr.errors import InputError
from detr.export.about import KEY, about_from
from detr.export.feeding import Feeds
from detr.export.file_runner import FileRunner
from detr.export.packages import package
from detr.export.program import answers_of
from detr.export.stages import STAGES, stage_of
from detr.export.to_openvino import said_by

_MOST_SIZES = 4  # of batches, compiled at a time


class OpenVINORunner(FileRunner):
    """Runs an `.xml` with its `.bin`, or an `.onnx`, on the CPU; each number of images is compiled for once.

    As many threads as PyTorch has where `threads` is not given. `half` computes in bfloat16 where the processor can,
    else everything that isn't int8 in float32.
    """

    def __init__(self, path: Path, *, threads: int | None = None, half: bool = False) -> None:
        openvino = package("openvino")
        self.path, self.half = path, half
        self._core = openvino.Core()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        }
        self._model: Any = self._read()
        super().__init__(about_from(_said(self._model, path), path))
        self._outputs = answers_of(self.about)
        self._requests: dict[int, Any] = {}
        self._staged: Any = None

    @property
    def name(self) -> str:
        number = "bfloat16" if self.half else "float32"
        return f"openvino {self.number if self.number == number else f'{self.number}, {number}'}"

    def answers(self, feeds: Feeds) -> dict[str, Tensor]:
        return _run(self._request(len(feeds["images"])), self._outputs, feeds)

    def borders(self, feeds: Feeds) -> dict[str, Tensor]:
        """Of a copy of the file that gives out these too."""
        if self._staged is None:
            model = self._read()
            found = {name for op in model.get_ops() for output in op.outputs() for name in output.get_names()}
            names = [name for name in sorted(found) if stage_of(name) in STAGES and name.count(".") == 1]
            names = [name for name in names if name not in self._outputs]
            for name in names:
                model.add_outputs(name)
            self._staged = self._compiled(model), names
        request, names = self._staged
        return _run(request, names, feeds)

    def _read(self) -> Any:
        try:
            return self._core.read_model(self.path)
        except RuntimeError as problem:
            raise InputError(f"{self.path} can't be read by OpenVINO: {' '.join(str(problem).split())}") from None

    def _request(self, batch: int) -> Any:
        """Static shapes are faster than leaving the number of images open; where the sizes are open, all is."""
        if self.about.form.open_size or self.about.form.preprocessing:
            batch = -1
        if batch not in self._requests:
            if len(self._requests) == _MOST_SIZES:
                del self._requests[next(iter(self._requests))]
            if batch > 0:
                self._model.reshape({each: [batch, *each.partial_shape[1:]] for each in self._model.inputs})
            self._requests[batch] = self._compiled(self._model)
        return self._requests[batch]

    def _compiled(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()


def _run(request: Any, names: Any, feeds: Feeds) -> dict[str, Tensor]:
    request.infer(feeds, share_inputs=True)
    # The request's own memory is written over by the next images.
    return {name: torch.from_numpy(request.get_tensor(name).data.copy()) for name in names}


def _said(model: Any, path: Path) -> str | None:
    if path.suffix != ".onnx":
        return said_by(model)
    place = ["framework", KEY]  # where OpenVINO puts the metadata of an ONNX file
    return model.get_rt_info(place).astype(str) if model.has_rt_info(place) else None
