"""Images that fill only a part of the frame: where their tokens lie, as shares of the image and of the frame.

All is computed in float32 whatever the type of the network, as officially (Zhu et al. 2021), and nothing is computed
where there is no padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

Shapes = tuple[tuple[int, int], ...]


def valid_sizes(padding: Tensor, shapes: Shapes) -> Tensor:
    """padding [B, S], True where there is no image -> [B, L, 2], width and height of the image in cells of each level.

    The image lies in the upper left corner. At least 1, so that a wholly padded frame gives no NaN.
    """
    sizes = []
    for (height, width), level in zip(shapes, padding.split([h * w for h, w in shapes], 1), strict=True):
        there = ~level.unflatten(1, (height, width))
        sizes.append(torch.stack([there[:, 0].sum(-1), there[:, :, 0].sum(-1)], -1))
    return torch.stack(sizes, 1).clamp(min=1).to(torch.float32)


def valid_ratios(padding: Tensor | None, shapes: Shapes) -> Tensor | None:
    """[B, L, 2], the share of each level's width and height that is image; None where all is."""
    if padding is None:
        return None
    widths, heights = valid_sizes(padding, shapes).unbind(-1)
    shares = [
        torch.stack([widths[:, level] / width, heights[:, level] / height], -1)
        for level, (height, width) in enumerate(shapes)
    ]
    return torch.stack(shares, 1)


def cell_centres(shapes: Shapes, padding: Tensor | None, device: torch.device) -> Tensor:
    """[B, S, 2], or [1, S, 2] without padding: xy of each token's middle as shares of the image; more than 1 beyond."""
    sizes = None if padding is None else valid_sizes(padding, shapes)
    levels = []
    for level, (height, width) in enumerate(shapes):
        x, y = (torch.arange(side, dtype=torch.float32, device=device) + 0.5 for side in (width, height))
        if sizes is None:
            x, y = x / width, y / height
        y, x = torch.meshgrid(y, x, indexing="ij")
        cells = torch.stack([x, y], -1).flatten(0, 1)[None]
        levels.append(cells if sizes is None else cells / sizes[:, level, None])
    return torch.cat(levels, 1)


def on_levels(boxes: Tensor, ratios: Tensor | None) -> Tensor:
    """Shares of the image [B, Q, 2 or 4] -> shares of each level's frame [B, Q, L, 2 or 4]; unchanged without padding.

    `ratios` [B, L, 2] as from `valid_ratios`; boxes are cxcywh.
    """
    if ratios is None:
        return boxes
    if boxes.shape[-1] == 4:
        ratios = torch.cat([ratios, ratios], -1)
    return boxes[:, :, None] * ratios[:, None]
