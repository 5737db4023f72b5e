"""A 1x1 convolution of several maps at once, and how it is computed with fewer multiplications for inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr.layers.conv import ConvNorm, with_bias


class MergingConv(ConvNorm):
    """1x1 convolution, norm and activation of two maps laid side by side, the first enlarged to the second's size."""

    def __init__(self, channels_in: tuple[int, int], channels_out: int, *, activation: nn.Module | None = None) -> None:
        super().__init__(sum(channels_in), channels_out, activation=activation)
        self.channels_in = channels_in
        self.of_coarse: ConvNorm | None = None
        self.of_fine: ConvNorm | None = None

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        coarse, fine = maps
        if self.of_coarse is None or self.of_fine is None:
            return super().forward(torch.cat([enlarged(coarse, like=fine), fine], 1))
        return self.of_fine.residual(fine, enlarged(self.of_coarse(coarse), like=fine), self.activation)

    @torch.no_grad()
    def take_apart(self, projection: nn.Module | None = None) -> None:
        """Become the sum of a convolution of each map at its own size; after `fuse`, and exact but for rounding.

        Places aren't mixed, so enlarging can come after the convolution. `projection` is what the fine map has come
        through so far: folded, linear, and from now on a part of this convolution.
        """
        of_coarse, of_fine = _precise(self.conv.weight).split(self.channels_in, 1)
        assert self.conv.bias is not None, "fold the norm first"
        bias = _precise(self.conv.bias)
        if isinstance(projection, ConvNorm):
            before = projection.conv
            assert before.bias is not None, "fold the projection's norm first"
            bias = bias + of_fine.flatten(1) @ _precise(before.bias)
            of_fine = (of_fine.flatten(1) @ _precise(before.weight).flatten(1))[..., None, None]
        like = self.conv.weight
        self.of_coarse = _linear(of_coarse.to(like), torch.zeros_like(bias).to(like))
        self.of_fine = _linear(of_fine.to(like), bias.to(like))
        self.conv = nn.Identity()  # type: ignore[assignment]


def _precise(values: Tensor) -> Tensor:
    """In float64, which Apple's GPUs don't know."""
    return values.cpu().double()


def _linear(kernel: Tensor, bias: Tensor) -> ConvNorm:
    """A folded 1x1 convolution without activation."""
    part = ConvNorm(kernel.shape[1], kernel.shape[0])
    part.conv = with_bias(part.conv, kernel, bias)
    part.norm = nn.Identity()
    return part


def enlarged(x: Tensor, *, like: Tensor) -> Tensor:
    """x at the height and width of `like`, by the nearest neighbour."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")
