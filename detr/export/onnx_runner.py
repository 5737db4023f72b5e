"""An exported ONNX file as a `Runner`, by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr.errors import InputError, UsageError
from detr.export.about import KEY, about_from
from detr.export.feeding import Feeds
from detr.export.file_runner import FileRunner, tensors
from detr.export.packages import package
from detr.export.program import answers_of
from detr.export.stages import STAGES, stage_of


class OnnxRunner(FileRunner):
    """Takes any number of images at once, on the CPU. As many threads as PyTorch has where `threads` is not given."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.path = path
        self._threads = threads or torch.get_num_threads()
        self._session: Any = self._opened(path)
        super().__init__(about_from(self._session.get_modelmeta().custom_metadata_map.get(KEY), path))
        self._outputs = answers_of(self.about)
        self._staged: Any = None

    @property
    def name(self) -> str:
        return f"onnx {self.number}"

    def answers(self, feeds: Feeds) -> dict[str, Tensor]:
        return self._run(self._session, self._outputs, feeds)

    def borders(self, feeds: Feeds) -> dict[str, Tensor]:
        """Of a copy of the file that gives out these too."""
        if self._staged is None:
            model = package("onnx").load(self.path)
            made = [name for node in model.graph.node for name in node.output if stage_of(name) in STAGES]
            names = [name for name in made if name.count(".") == 1 and name not in self._outputs]
            for name in names:
                model.graph.output.add().name = name
            self._staged = self._opened(model.SerializeToString()), names
        session, names = self._staged
        return self._run(session, names, feeds)

    def _opened(self, model: Path | bytes) -> Any:
        onnxruntime = package("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # its exceptions have no common parent but this
            raise InputError(f"{self.path} can't be run by ONNX Runtime: {_one_line(problem)}") from None

    def _run(self, session: Any, names: Any, feeds: Feeds) -> dict[str, Tensor]:
        try:
            return tensors(dict(zip(names, session.run(list(names), feeds), strict=True)))
        except Exception as problem:  # as above
            sizes = ", ".join(f"{name} {list(values.shape)}" for name, values in feeds.items())
            raise UsageError(f"{self.path} can't compute with {sizes}: {_one_line(problem)}") from None


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())
