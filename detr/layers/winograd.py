"""3x3 convolutions for inference on a CPU in float32, with a quarter of the multiplications (`detr.layers.tiles`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr.layers.tiles import NUMBERS, STEP, apart, matrices, together

_FEWEST_CHANNELS = 128  # with fewer, cutting into tiles takes longer than the products it saves (AMD Zen 4, Intel Xeon)
_BYTES_AT_ONCE = 16 << 20  # of a map's tiles: more than that no cache holds


class WinogradConv(nn.Module):
    """A convolution that `fits`, computed by tiles; the result differs by rounding, several times a convolution's."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert conv.bias is not None, "fold the norm first"
        weight = matrices(conv.weight.detach())
        self.products = nn.Conv2d(weight.shape[1] * NUMBERS, len(weight), 1, groups=NUMBERS, bias=False, device="meta")
        self.products.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = conv.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        rows, columns = -(-height // STEP), -(-width // STEP)
        rows_at_once = max(1, _BYTES_AT_ONCE // (columns * NUMBERS * channels * x.element_size()))
        if images > 1 and images * rows > rows_at_once:
            return torch.cat([self(part) for part in x.split(max(1, rows_at_once // rows))])
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.pad(x, (1, STEP * columns - width + 1, 1, STEP * rows - height + 1))
        parts = [slice(STEP * first, STEP * (first + rows_at_once) + 2) for first in range(0, rows, rows_at_once)]
        answers = [self._of_tiles(x[:, :, part]) for part in parts]
        whole = answers[0] if len(answers) == 1 else torch.cat(answers, 2)
        return whole[..., :height, :width]

    def _of_tiles(self, padded: Tensor) -> Tensor:
        return together(self.products(apart(padded)), self.bias)


def use_tiles(network: nn.Module) -> int:
    """Replace the convolutions that `fits` finds in a folded network, for inference only; how many there were."""
    found = [(module, name) for module in network.modules() for name, child in module.named_children() if fits(child)]
    for module, name in found:
        setattr(module, name, WinogradConv(getattr(module, name)))
    return len(found)


def fits(conv: nn.Module) -> bool:
    """Whether it is a plain 3x3 convolution with a bias, of so many channels that tiles are faster."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and (conv.groups, conv.padding_mode, conv.weight.dtype) == (1, "zeros", torch.float32)
        and conv.bias is not None
        and min(conv.in_channels, conv.out_channels) >= _FEWEST_CHANNELS
    )
