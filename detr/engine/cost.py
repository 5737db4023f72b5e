"""What a network costs, whatever machine it runs on: its parameters, and its arithmetic for one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from detr.errors import counted
from detr.image import InputConfig
from detr.models import Network
from detr.models.inspection import name_of

TYPICAL = (480, 640)  # (height, width) of a COCO image


@dataclass(frozen=True)
class Info:
    """A model in numbers, as it stands: with the layers and queries that are set. As text it is one line."""

    model: str | None  # the preset that it is or is like; None for one of your own
    classes: int
    layers: int  # of the decoder
    queries: int
    parameters: int
    gflops: float  # of one image, at `input`
    input: tuple[int, int]  # (height, width) that an image of 640 x 480 is given

    def __str__(self) -> str:
        """`rtdetr-tiny: 2.59 million parameters, 1.9 GFLOPs at 320 x 320, 3 decoder layers, 100 queries, 80 classes`"""
        height, width = self.input
        parts = [
            f"{self.parameters / 1e6:.2f} million parameters",
            f"{self.gflops:.1f} GFLOPs at {width} x {height}",
            counted(self.layers, "decoder layer"),
            counted(self.queries, "query", "queries"),
            counted(self.classes, "class", "classes"),
        ]
        return f"{self.model or 'a model of your own'}: {', '.join(parts)}"


def info_of(network: Network) -> Info:
    """What `detr models` lists, of any network."""
    config = network.config
    return Info(
        name_of(network),
        len(network.classes),
        network.decoder.eval_layers,
        config.num_queries,
        parameters_of(network),
        flops_of(network) / 1e9,
        config.input.size_of(*TYPICAL),
    )


def parameters_of(network: nn.Module) -> int:
    """All numbers that are learned or could be, frozen ones included."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops_of(network: Network, input: InputConfig | None = None) -> int:
    """Operations for one image of 640 x 480 at the size that `input`, by default the network's own, gives it.

    A multiplication and an addition are two. Convolutions and matrix products are counted, attention among them, of the
    folded network with the layers and queries that are set; norms, activations and sampling are not: they are memory
    traffic.
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads Triton

    folded = network.folded().to("meta")  # shapes are enough
    input = input or network.config.input
    images = torch.empty(1, input.channels, *input.size_of(*TYPICAL), device="meta")
    # Fused attention is not counted on every device; the plain kind is matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        folded(images)
    return counter.get_total_flops()
