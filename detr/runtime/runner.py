"""Whatever answers like an evaluated network, and a network made ready to answer fast."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from detr.classes import Classes
from detr.layers.packed import convolve_linears, pack, packable
from detr.layers.winograd import use_tiles
from detr.models.network import DetectionNetwork
from detr.models.postprocess import Scoring
from detr.records import Output, Predictions
from detr.runtime.device import half_type

_SIZES = 64  # of images or maps, each of which is compiled by itself


class Runner(Protocol):
    """Images in, the answering layer's predictions out, in float32: what predict, val and benchmark run."""

    @property
    def config(self) -> Any:
        """The model's settings, with `input` and `num_queries`."""

    @property
    def classes(self) -> Classes: ...

    @property
    def scoring(self) -> Scoring: ...

    @property
    def device(self) -> torch.device:
        """Where the answer lies; images may come from the CPU."""

    @property
    def name(self) -> str:
        """A few words for reports, such as `torch bfloat16, compiled`."""

    def __call__(self, images: Tensor, padding: Tensor | None = None) -> Output:
        """images [B, C, h, w] float32 as `config.input` says, padding [B, h, w] True where there is no image."""


class TorchRunner:
    """A copy of the network for inference only: folded (`network.deploy()`), its convolutions channels-last.

    On an x86 processor these and the linear layers are also packed (`detr.layers.packed`), and wide convolutions in
    float32 multiply less (`detr.layers.winograd`): scores and boxes then differ by a few more roundings.
    The copy doesn't follow later changes of the network. A module that is no `DetectionNetwork` is run as it is.
    `half` computes in 16 bits: float16 on a GPU, bfloat16 on the CPU. `compile` hands the network to `torch.compile`:
    a minute at the first batch of each shape, and on a CPU a C++ compiler; on a GPU it replays CUDA graphs.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str | None = None,
        half: bool = False,
        compile: bool = False,
    ) -> None:
        self.device = _device_of(network) if device is None else torch.device(device)
        self.half, self.compile = half, compile
        self.network: Any = _folded(network).to(self.device).eval()
        if self.network is not network and self.device.type == "cpu" and packable():
            _prepare(self.network, half=half, compile=compile)
        self._answer = _compiled(self.network, self.device) if compile else self.network
        self._ask = _in_one_thread(self._on) if compile and self.device.type == "cuda" else self._here
        self._layout = torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    @property
    def config(self) -> Any:
        return self.network.config

    @property
    def classes(self) -> Classes:
        return self.network.classes

    @property
    def scoring(self) -> Scoring:
        return self.network.scoring

    @property
    def name(self) -> str:
        number = str(half_type(self.device) if self.half else torch.float32).removeprefix("torch.")
        return f"torch {number}{', compiled' if self.compile else ''}"

    def __call__(self, images: Tensor, padding: Tensor | None = None) -> Output:
        images = images.to(self.device, non_blocking=True).contiguous(memory_format=self._layout)
        padding = None if padding is None else padding.to(self.device, non_blocking=True)
        return Output((self._ask(images, padding),))

    def _here(self, images: Tensor, padding: Tensor | None) -> Predictions:
        with torch.no_grad(), torch.autocast(self.device.type, half_type(self.device), enabled=self.half):
            last = self._answer(images, padding).layers[-1]
        # What a CUDA graph gives is overwritten by its next replay.
        return Predictions(_own(last.logits, self.compile), _own(last.boxes, self.compile))

    def _on(self, stream: torch.cuda.Stream, images: Tensor, padding: Tensor | None) -> Predictions:
        with torch.cuda.stream(stream):
            return self._here(images, padding)


def _folded(network: nn.Module) -> nn.Module:
    """A copy with convolutions channels-last, which CPUs and GPUs are faster with; Apple's GPU is not asked."""
    if not isinstance(network, DetectionNetwork):
        return network
    folded = network.deploy()
    for parameter in folded.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return folded


def _prepare(network: nn.Module, *, half: bool, compile: bool) -> None:
    """Have a folded network computed as an x86 processor is fastest with it."""
    if not half:
        use_tiles(network)
    if not compile:
        pack(network, half_type(torch.device("cpu")) if half else torch.float32)
    elif not half:
        convolve_linears(network)


def _compiled(network: nn.Module, device: torch.device) -> Callable[..., Output]:
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    on_cpu = device.type == "cpu"
    how: dict[str, Any] = {"dynamic": False} if on_cpu else {"options": {"triton.cudagraphs": True}}
    compiled = torch.compile(network, fullgraph=True, **how)

    def answer(images: Tensor, padding: Tensor | None) -> Output:
        # Weights are taken for constants, and packed, only where freezing is set for the process when they are met.
        with inductor.patch(freezing=on_cpu), dynamo.patch(recompile_limit=_SIZES):
            return compiled(images, padding)

    return answer


def _in_one_thread(ask: Callable[..., Predictions]) -> Callable[[Tensor, Tensor | None], Predictions]:
    """The same for callers of any thread, on their streams: CUDA graphs belong to the thread that made them (PyTorch
    2.11 fails in another), and two at once would write into each other's answer."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="detr-graphs")

    def hand_over(images: Tensor, padding: Tensor | None) -> Predictions:
        return thread.submit(ask, torch.cuda.current_stream(images.device), images, padding).result()

    return hand_over


def _own(values: Tensor, shared: bool) -> Tensor:
    return values.to(torch.float32, copy=shared)


def _device_of(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
