"""A TensorRT engine as a `Runner`, on the GPU that it was built for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr.errors import InputError, UsageError
from detr.export.engine_file import Heading, read_engine, read_heading
from detr.export.feeding import Feeds
from detr.export.file_runner import FileRunner, tensors
from detr.export.packages import package
from detr.export.program import answers_of
from detr.export.tensorrt_place import new_log, place_here, started


class TensorRTRunner(FileRunner):
    """Images come from the CPU's memory, and answers go there. An engine is a program: run none that you don't trust.

    UsageError without a GPU or TensorRT; InputError for what isn't an engine of ours, is damaged, or was built
    elsewhere.
    """

    shows_stages = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._heading = read_heading(path)
        super().__init__(self._heading.about)
        _require_place(self._heading, path)
        self.most_images = min(most[0] for _, _, most in self._heading.shapes.values())
        self._tensorrt = package("tensorrt")
        self._log = new_log(self._tensorrt)
        self._engine = self._deserialised(read_engine(path, self._heading))
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise InputError(f"{path} can't be run here: {self._log.text}")
        self._stream = torch.cuda.Stream()
        self._outputs = answers_of(self.about)

    @property
    def name(self) -> str:
        return f"tensorrt {self.number}"

    def answers(self, feeds: Feeds) -> dict[str, Tensor]:
        self._require_sizes(feeds)
        with torch.cuda.stream(self._stream):
            given = {name: values.to(_gpu()).contiguous() for name, values in tensors(feeds).items()}
            for name, values in given.items():
                self._asked(self._context.set_input_shape(name, tuple(values.shape)))
                self._asked(self._context.set_tensor_address(name, values.data_ptr()))
            answers = {name: self._room(name) for name in self._outputs}
            for name, values in answers.items():
                self._asked(self._context.set_tensor_address(name, values.data_ptr()))
            self._asked(self._context.execute_async_v3(self._stream.cuda_stream))
            self._stream.synchronize()
            return {name: values.cpu() for name, values in answers.items()}

    def borders(self, feeds: Feeds) -> dict[str, Tensor]:
        return {}  # it has melted its stages together

    def _deserialised(self, engine: bytes) -> Any:
        self._runtime: Any = started(self._tensorrt.Runtime, self._log)  # has to live as long as the engine
        found = self._runtime.deserialize_cuda_engine(engine)
        if found is None:
            raise InputError(f"{self.path} can't be read by TensorRT: {self._log.text}")
        return found

    def _room(self, name: str) -> Tensor:
        """For an answer, of the shape that follows from the inputs'."""
        shape = tuple(self._context.get_tensor_shape(name))
        number = getattr(torch, _NUMBERS[self._engine.get_tensor_dtype(name).name])
        return torch.empty(shape, dtype=number, device=_gpu())

    def _require_sizes(self, feeds: Feeds) -> None:
        for name, values in feeds.items():
            least, _, most = self._heading.shapes[name]
            if any(not low <= size <= high for low, size, high in zip(least, values.shape, most, strict=True)):
                raise UsageError(
                    f"{name} of {list(values.shape)}: {self.path} takes {list(least)} to {list(most)}; export it again"
                )

    def _asked(self, done: bool) -> None:
        if not done:
            raise InputError(f"{self.path} can't compute this: {self._log.text}")


_NUMBERS = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's words for them, and PyTorch's."""


def _require_place(heading: Heading, path: Path) -> None:
    here = place_here()
    if heading.place != here:
        raise InputError(f"{path} was built for {heading.place}; here is {here}: export it again here")


def _gpu() -> torch.device:
    return torch.device("cuda")
