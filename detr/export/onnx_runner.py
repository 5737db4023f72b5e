"""An exported ONNX file as a `Runner`, by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr.errors import InputError
from detr.export.about import KEY, About, about_from
from detr.export.feeding import fed
from detr.export.packages import package
from detr.records import Output, Predictions


class OnnxRunner:
    """Takes any number of images at once, on the CPU. As many threads as PyTorch has where `threads` is not given."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        onnxruntime = package("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # its exceptions have no common parent but this
            raise InputError(f"{path} can't be run by ONNX Runtime: {' '.join(str(problem).split())}") from None
        self.about: About = about_from(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)
        self.config, self.classes, self.scoring = self.about.config, self.about.classes, self.about.scoring
        self.device = torch.device("cpu")

    @property
    def name(self) -> str:
        return f"onnx {'int8' if self.about.int8 else 'float32'}"

    def __call__(self, images: Tensor, padding: Tensor | None = None) -> Output:
        answers = self._session.run(["logits", "boxes"], fed(self.about, images, padding))
        logits, boxes = (torch.from_numpy(each) for each in answers)
        return Output((Predictions(logits, boxes),))
