"""From a picture's bytes to the network's input inside an exported file: the same numbers as `detr.image` gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr.image import InputConfig

_HALF = 2**11


class Preparation(nn.Module):
    """Pictures [B, h, w, C] uint8, of one size -> images [B, C, H, W] as the network takes them.

    H and W are fixed: `size`. Where the input keeps the aspect, the rest is padding [B, H, W], else that is None.
    """

    def __init__(self, input: InputConfig, size: tuple[int, int]) -> None:
        super().__init__()
        self.decode = Decode()
        self.resize = Resize(input, size)
        self.normalise = Normalise(input)

    def forward(self, pictures: Tensor, seen: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """`seen` is given what the stages hand on."""
        seen["decode.image"] = image = self.decode(pictures)
        image, padding = self.resize(image)
        seen["resize.image"] = image
        seen["normalise.image"] = image = self.normalise(image, padding)
        return image, padding


class Decode(nn.Module):
    """[B, h, w, C] uint8 -> [B, C, h, w] float32 from 0 to 255"""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.to(torch.float32).permute(0, 3, 1, 2)  # TensorRT does nothing with bytes but convert them


class Resize(nn.Module):
    """Pillow's bilinear resizing to the last bit, as products with matrices of weights.

    It averages over what a pixel covers, and rounds after each direction. Here width comes first; Pillow from 13 on
    begins with the direction that shrinks more, which makes a difference of one level in some pixels. Resizing as ONNX,
    OpenVINO and PyTorch know it differs from Pillow's, and from each other, by up to several levels, which moves boxes.
    """

    def __init__(self, input: InputConfig, size: tuple[int, int]) -> None:
        super().__init__()
        self.input, self.size = input, size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, C, h, w] -> [B, C, H, W], and the padding [B, H, W] where the aspect is kept"""
        height, width = self.size
        h, w = (torch.scalar_tensor(side, dtype=torch.int64, device=image.device) for side in image.shape[-2:])
        if self.input.keeps_aspect:
            new_h, new_w = self._short_side(h, w)
        else:
            new_h, new_w = torch.full_like(h, height), torch.full_like(w, width)
        rows = _weights(image.shape[-2], h, height, new_h)
        columns = _weights(image.shape[-1], w, width, new_w)
        image = _rounded(*(image @ each.t() for each in columns))
        image = _rounded(*(each @ image for each in rows))
        if not self.input.keeps_aspect:
            return image, None
        beyond = (_places(height, h) >= new_h)[:, None] | (_places(width, w) >= new_w)[None]
        return image, beyond.expand(image.shape[0], -1, -1)

    def _short_side(self, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """`InputConfig.size_of` in whole numbers, where every rounding is exact."""
        shorter, longer = torch.minimum(h, w), torch.maximum(h, w)
        short, most = self.input.short, self.input.long
        nearest = _divided(2 * most * shorter + longer, 2 * longer)
        is_tie = (nearest * 2 * longer == 2 * most * shorter + longer) & (nearest % 2 == 1)
        nearest = nearest - is_tie.to(torch.int64)  # as Python rounds: half to even
        new_short = torch.where(longer * short > most * shorter, nearest, torch.full_like(nearest, short))
        new_long = _divided(new_short * longer, shorter).clamp(min=1)
        new_short = new_short.clamp(min=1)
        is_high = h > w
        return torch.where(is_high, new_long, new_short), torch.where(is_high, new_short, new_long)


class Normalise(nn.Module):
    """As `detr.image.normalise`; padding becomes 0."""

    def __init__(self, input: InputConfig) -> None:
        super().__init__()
        self.mean, self.std = input.mean, input.std

    def forward(self, image: Tensor, padding: Tensor | None) -> Tensor:
        image = image / 255
        if self.mean is not None and self.std is not None:
            image = (image - image.new_tensor(self.mean).view(-1, 1, 1)) / image.new_tensor(self.std).view(-1, 1, 1)
        return image if padding is None else image.masked_fill(padding[:, None], 0)


def _weights(given: int, count: Tensor, most: int, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """[most, given] share of each of the `given` pixels in each of the first `wanted` ones; the others have none.

    A triangle over the pixel's place, as wide as two of the coarser pixels. As Pillow has them: whole numbers of
    1 / 2**22. They are given as (high, low), high * 2**11 + low, so that sums of products with bytes are exact in
    float32 (up to shrinking sixteen times), and each step of the way in 32 bits.
    """
    places = (2 * _places(given, count) + 1) * wanted  # of the middles, times 2 * wanted
    middles = (2 * _places(most, count) + 1) * count
    width = 2 * torch.maximum(count, wanted)
    near = (width - (places[None] - middles[:, None]).abs()).clamp(min=0)
    near = near * (_places(most, count) < wanted)[:, None]
    whole = near.sum(1, keepdim=True).clamp(min=1)
    high = _divided(near * _HALF, whole)
    low = _divided((near * _HALF - high * whole) * (2 * _HALF) + whole, 2 * whole)
    return high.to(torch.float32), low.to(torch.float32)


def _rounded(high: Tensor, low: Tensor) -> Tensor:
    """Sums of products with weights -> the nearest whole number"""
    total = high.to(torch.int64) * _HALF + low.to(torch.int64) + _HALF * _HALF // 2
    return _divided(total, torch.full_like(total, _HALF * _HALF)).to(torch.float32)


def _places(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=torch.int64, device=like.device)


def _divided(a: Tensor, b: Tensor) -> Tensor:
    """a // b of whole numbers. Exporters write `torch.div` with a rounding mode as a division in float32."""
    return a // b
