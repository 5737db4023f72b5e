"""What a network costs, whatever machine it runs on: its parameters, and its arithmetic for one image."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from detr.image import InputConfig
from detr.models import Network

TYPICAL = (480, 640)  # (height, width) of a COCO image


def parameters_of(network: nn.Module) -> int:
    """All numbers that are learned or could be, frozen ones included."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops_of(network: Network, input: InputConfig | None = None) -> int:
    """Operations for one image of 640 x 480 at the size that `input`, by default the network's own, gives it.

    A multiplication and an addition are two. Convolutions and matrix products are counted, attention among them, of the
    folded network with the layers and queries that are set; norms, activations and sampling are not: they are memory
    traffic.
    """
    folded = network.folded().to("meta")  # shapes are enough
    input = input or network.config.input
    images = torch.empty(1, input.channels, *input.size_of(*TYPICAL), device="meta")
    # Fused attention is not counted on every device; the plain kind is matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        folded(images)
    return counter.get_total_flops()
