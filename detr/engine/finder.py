"""Weights and the device they run on: settings and frames in, results out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import nn

from detr.classes import Classes
from detr.engine import detecting
from detr.engine.cost import Info, info_of
from detr.engine.detecting import Prepared
from detr.engine.results import Results
from detr.errors import InputError, UsageError, counted
from detr.evaluation.thresholds import read_thresholds
from detr.models import load_model
from detr.runtime.device import choose_device
from detr.runtime.runner import Runner, TorchRunner
from detr.runtime.settings import Settings, at_least_1, class_indices, input_of_size, set_effort, share
from detr.slicing import Slicing
from detr.video import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


class Finder:
    """What a `Detector` is made of; see there."""

    archs: ClassVar[tuple[str, ...]] = ()  # the only architectures this class takes; all where there is none

    def __init__(
        self,
        weights: str | os.PathLike[str] | nn.Module | Runner = "rtdetr-tiny",
        *,
        model: str | None = None,
        device: str | torch.device | None = None,
        layers: int | None = None,
        queries: int | None = None,
        compile: bool = False,
    ) -> None:
        """`weights`: a release, a file, a network, or a runner such as `detr.export` makes, which has no `network`.

        `model`: the preset, where a file doesn't say what it is.

        `layers`, `queries`: how many decoder layers and queries answer, by default the model's own; fewer are faster.
        `compile`: hand the network to `torch.compile` (see `TorchRunner`), for many pictures of the same size.
        """
        self.model, self.compile = model, compile
        self._ready: tuple[object, TorchRunner] | None = None
        self._is_given = not isinstance(weights, (str, os.PathLike))
        self.source = os.fspath(weights) if isinstance(weights, (str, os.PathLike)) else type(weights).__name__
        if not isinstance(weights, (str, os.PathLike, nn.Module)):
            self._runner: Runner | None = weights
            self.network: Any = None
            self.device = weights.device
            self._require_arch(weights.config)
            return
        self._runner = None
        self.device = choose_device("auto" if device is None else str(device))
        network = weights if isinstance(weights, nn.Module) else load_model(os.fspath(weights), model)
        self._require_arch(network.config)
        self.network = network.to(self.device).eval()
        set_effort(cast(Any, network), layers=layers, queries=queries)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which makes its own copy ready: one that is packed for this processor can't be sent."""
        return {**self.__dict__, "_ready": None}

    def _load(self, weights: str) -> None:
        """Hold these from now on: a file that says what it is."""
        self.source, self.model = weights, None
        self.network = load_model(weights).to(self.device).eval()

    def _require_arch(self, config: Any) -> None:
        if self.archs and config.arch not in self.archs:
            from detr.engine.families import door

            said = f"{self.source} is a model of kind {config.arch!r}, not {' or '.join(map(repr, self.archs))}"
            raise InputError(f"{said}; use detr.{door(config.arch)}, or detr.Detector, which takes any")

    @property
    def config(self) -> Any:
        """The model's settings."""
        return self.network.config if self._runner is None else self._runner.config

    @property
    def classes(self) -> Classes:
        """What the weights find: names, and the category ids of the data they learned from."""
        return self.network.classes if self._runner is None else self._runner.classes

    @property
    def names(self) -> dict[int, str]:
        """Class index -> name."""
        return self.classes.as_dict()

    def __repr__(self) -> str:
        classes = counted(len(self.classes), "class", "classes")
        return f"{type(self).__name__}({self.source!r}, {classes}, {self.device})"

    def info(self) -> Info:
        """Parameters, arithmetic, layers, queries and classes; `print` it for one line. UsageError for a runner."""
        if self.network is None:
            raise UsageError(f"{self.source} gives its answer only; ask the weights that it was exported from")
        return info_of(self.network)

    def to(self, device: str | torch.device) -> Self:
        """Move it: auto, cpu, cuda, cuda:N or mps. UsageError for a device that isn't there."""
        chosen = choose_device(str(device))
        if self._runner is None:
            self.network.to(chosen)
        elif chosen != self.device:
            raise UsageError(f"device {str(device)!r}: {self._runner.name} runs on {self.device}")
        self.device = chosen
        return self

    def runner(self, *, half: bool = False) -> Runner:
        """The network made ready to answer: folded, once for as long as it stays as it is.

        A runner that was given is given back: what it computes in was said when it was made.
        """
        if self._runner is not None:
            return self._runner
        state = (id(self.network), self.device, half, self.compile, *_versions(self.network))
        if self._ready is None or self._ready[0] != state:
            self._ready = None  # two copies need not be there at a time
            runner = TorchRunner(self.network, device=self.device, half=half, compile=self.compile)
            self._ready = state, runner
        return self._ready[1]

    def settings(
        self,
        *,
        conf: float | str | os.PathLike[str] = 0.25,
        classes: Sequence[int | str] | int | str | None = None,
        max_det: int = 300,
        imgsz: int | Sequence[int] | None = None,
        half: bool = False,
        slicing: Slicing | None = None,
    ) -> Settings:
        """Checked settings; UsageError for a value that makes no sense."""
        is_file = isinstance(conf, os.PathLike) or (isinstance(conf, str) and conf.endswith(".json"))
        by_class = read_thresholds(Path(cast(str, conf)), self.classes) if is_file else None
        return Settings(
            conf=min(by_class) if by_class is not None else share("conf", cast(float, conf)),
            by_class=by_class,
            classes=None if classes is None else class_indices(classes, self.classes),
            max_det=at_least_1("max_det", max_det),
            input=input_of_size(self.config.input, imgsz),
            half=half,
            slicing=slicing,
        )

    def results(self, pictures: Iterable[Frame], settings: Settings, *, batch: int = 1) -> Iterator[Results]:
        """A result for each frame, in order. Reading and preparing run ahead in a thread."""
        return detecting.results(self, pictures, settings, batch=batch)

    def detect(self, group: Sequence[Prepared], settings: Settings) -> list[Results]:
        """One pass of the network; images of different size are padded. InputError where it answers with NaN."""
        return detecting.detect(self, group, settings)


def _versions(network: nn.Module) -> tuple[object, ...]:
    """Differs from what it was when settings or numbers of the network have changed."""
    tensors = [*network.parameters(), *network.buffers()]
    config = cast(Any, network.config)
    return (id(config), *((id(each), each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors))
