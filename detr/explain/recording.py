"""What a network did in one pass, kept by hooks that change nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detr.errors import UsageError
from detr.layers.attention import CrossAttention, SelfAttention
from detr.layers.deformable import DeformableAttention
from detr.models.network import DetectionNetwork
from detr.models.proposals import Proposals, ProposalSelection
from detr.models.queries import Memory, Queries, QuerySelection
from detr.records import Output

Shapes = tuple[tuple[int, int], ...]


@dataclass(eq=False)
class DeformableCall:
    """A call of `DeformableAttention`: what it was given, and what it made of the queries."""

    module: DeformableAttention
    boxes: Tensor  # as in `DeformableAttention.forward`
    memory: Tensor  # [B, S, D]
    shapes: Shapes
    padding: Tensor | None  # [B, S]
    offsets: Tensor  # [B, Q, M * P * 2]
    logits: Tensor  # [B, Q, M * P]
    output: Tensor  # [B, Q, D]


@dataclass(eq=False)
class DenseCall:
    """A call of `CrossAttention`, or of `SelfAttention` as its queries, keys and values."""

    module: CrossAttention | SelfAttention
    query: Tensor  # [B, Q, D], positions added
    key: Tensor  # [B, S, D], positions added
    value: Tensor  # [B, S, D]
    mask: Tensor | None  # [..., Q or 1, S] bool, True where a row may look
    output: Tensor  # [B, Q, D]


@dataclass(eq=False)
class Recording:
    """Of the last pass. Tensors are those of the pass itself, not copies: whoever keeps this keeps them."""

    frame: tuple[int, int] = (0, 0)  # (height, width) of the input
    autocast: tuple[str, torch.dtype, bool] = ("cpu", torch.float32, False)  # device, type, whether it was on
    output: Output | None = None
    decoder_inputs: tuple[Any, ...] = ()
    looks: list[DeformableCall | DenseCall] = field(default_factory=list)  # of the decoder's layers, one each
    selection: tuple[QuerySelection | ProposalSelection, Queries | Proposals, Memory] | None = None  # and its input
    coarsest: tuple[int, int] = (0, 0)  # (h, w) of the map that the encoder's dense attention works on
    encoder: list[DenseCall] = field(default_factory=list)  # dense self-attention of its layers

    def clear(self) -> None:
        self.__dict__.update(vars(Recording()))


@contextmanager
def recording(network: nn.Module) -> Iterator[Recording]:
    """Inside, every pass of the network is recorded, over the one before. The computation stays as it is."""
    if not isinstance(network, DetectionNetwork):
        raise UsageError(f"a {type(network).__name__} can't be explained; expected one of this toolkit's networks")
    kept = Recording()
    handles = list(_hooks(network, kept))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _hooks(network: Any, kept: Recording) -> Iterator[Any]:
    def begin(module: nn.Module, given: tuple[Any, ...]) -> None:
        kept.clear()
        images = given[0]
        kept.frame = (images.shape[-2], images.shape[-1])
        device = images.device.type
        kept.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def end(module: nn.Module, given: tuple[Any, ...], output: Output) -> None:
        kept.output = output

    def before_decoder(module: nn.Module, given: tuple[Any, ...]) -> None:
        kept.decoder_inputs = given

    def before_encoder(module: nn.Module, given: tuple[Any, ...]) -> None:
        coarsest = given[0] if isinstance(given[0], Tensor) else given[0][-1]
        kept.coarsest = (coarsest.shape[-2], coarsest.shape[-1])

    def select(module: Any, given: tuple[Any, ...], output: Any) -> None:
        kept.selection = (module, output, given[0])

    yield network.register_forward_pre_hook(begin)
    yield network.register_forward_hook(end)
    yield network.decoder.register_forward_pre_hook(before_decoder)
    yield network.encoder.register_forward_pre_hook(before_encoder)
    for layer in network.decoder.layers:
        yield from _attention_hooks(layer.cross_attention, lambda call: kept.looks.append(call))
    for module in network.encoder.modules():
        if isinstance(module, SelfAttention):
            yield from _attention_hooks(module, lambda call: kept.encoder.append(call))
    for module in network.modules():
        if isinstance(module, (QuerySelection, ProposalSelection)):
            yield module.register_forward_hook(select)


def _attention_hooks(module: nn.Module, keep: Callable[[Any], None]) -> Iterator[Any]:
    if isinstance(module, DeformableAttention):
        parts: dict[str, Tensor] = {}
        yield module.offsets.register_forward_hook(lambda *call: parts.update(offsets=call[2]))
        yield module.weights.register_forward_hook(lambda *call: parts.update(logits=call[2]))

        def deformable(module: Any, given: tuple[Any, ...], output: Tensor) -> None:
            _, boxes, memory, shapes, padding = given
            keep(DeformableCall(module, boxes, memory, shapes, padding, **parts, output=output))

        yield module.register_forward_hook(deformable)
    elif isinstance(module, CrossAttention):

        def cross(module: Any, given: tuple[Any, ...], output: Tensor) -> None:
            query, key, value, mask = given
            keep(DenseCall(module, query, key, value, mask, output))

        yield module.register_forward_hook(cross)
    else:

        def own(module: Any, given: tuple[Any, ...], output: Tensor) -> None:
            x, position, mask = given
            placed = x + position
            keep(DenseCall(module, placed, placed, x, mask, output))

        yield module.register_forward_hook(own)
