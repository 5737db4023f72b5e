"""An exported file of `torch.export` as a `Runner`, by PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from detr.errors import InputError, UsageError
from detr.export.about import KEY, about_from
from detr.export.feeding import Feeds
from detr.export.file_runner import FileRunner, tensors
from detr.export.program import quiet
from detr.export.pt2_safety import require_harmless
from detr.export.to_pt2 import BORDERS


class Pt2Runner(FileRunner):
    """On the CPU, operation by operation as the graph has them."""

    def __init__(self, path: Path) -> None:
        extra = {KEY: "", BORDERS: ""}
        try:
            require_harmless(path)
            with quiet():
                self._program: Any = torch.export.load(path, extra_files=extra)
                self._module: Any = self._program.module()
        except InputError:
            raise
        except Exception as problem:  # a damaged archive is met with whatever its reader stumbles into
            raise InputError(f"{path} can't be read by torch.export: {' '.join(str(problem).split())}") from None
        super().__init__(about_from(extra[KEY], path))
        self.path = path
        self._nodes = {node: name for name, node in json.loads(extra[BORDERS] or "{}").items()}

    @property
    def name(self) -> str:
        return f"torch-export {self.number}"

    def answers(self, feeds: Feeds) -> dict[str, Tensor]:
        return self._run(self._module, feeds)

    def borders(self, feeds: Feeds) -> dict[str, Tensor]:
        """Of a run that takes the graph's nodes one by one."""
        watched = _Watched(self._module, self._nodes)
        self._run(lambda **given: watched.run(*(given[name] for name in feeds)), feeds)
        return watched.seen

    def _run(self, module: Any, feeds: Feeds) -> Any:
        try:
            with torch.no_grad():
                return module(**tensors(feeds))
        except (RuntimeError, AssertionError) as problem:
            sizes = ", ".join(f"{name} {list(values.shape)}" for name, values in feeds.items())
            raise UsageError(f"{self.path} can't compute with {sizes}: {' '.join(str(problem).split())}") from None


class _Watched(fx.Interpreter):
    def __init__(self, module: Any, nodes: dict[str, str]) -> None:
        super().__init__(module)
        self.nodes = nodes
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.nodes:
            self.seen[self.nodes[n.name]] = value
        return value
