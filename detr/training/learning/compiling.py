"""Parts of a network in training handed to the compiler."""

from __future__ import annotations

from typing import Any

from torch import nn

from detr.models.network import DetectionNetwork

_SIZES = 32


def compile_parts(network: DetectionNetwork) -> list[nn.Module]:
    """Backbone and encoder, in place: names stay as they are, and copies of the network are not compiled.

    The rest sees another number of queries with each batch, as denoising makes one for each target, and would be
    compiled again and again. Each size of the input is compiled by itself, which takes a minute.
    """
    import torch._dynamo.config as limits

    limits.recompile_limit = max(limits.recompile_limit, _SIZES)
    parts: list[Any] = [network.backbone, network.encoder]
    for part in parts:
        part.compile(dynamic=False)
    return parts
