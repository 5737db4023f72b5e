"""Boxes: formats, area, IoU, GIoU. `xyxy` are corners, `cxcywh` centre and size."""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] centre and size -> corners."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h), -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """[..., 4] corners -> centre and size."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)


def area(boxes: Tensor) -> Tensor:
    """[..., 4] xyxy -> [...] area; 0 where the corners stand the wrong way round."""
    return _extent(boxes[..., :2], boxes[..., 2:])


def iou(boxes: Tensor, others: Tensor, *, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes that stand opposite each other.

    Both [..., 4] xyxy, broadcast against one another: pass `boxes[:, None]` and `others[None]` for all pairs.
    Two empty boxes at one point have IoU 0. `epsilon` is added to the area that is divided by, as some papers' code
    does. Half precision and whole numbers are computed, and returned, in float32: the area of a box of 256 pixels is
    already too much for float16.
    """
    boxes, others = _precise(boxes), _precise(others)
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = _extent(low, high)
    union = area(boxes) + area(others) - intersection
    return torch.where(union > 0, intersection / _divisor(union, epsilon), 0.0), union


def giou(boxes: Tensor, others: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019, section 3) of boxes that stand opposite each other, in [-1, 1].

    Shapes and types as in `iou`. Finite as long as the areas are: where the enclosing box is empty, it is the IoU.
    """
    boxes, others = _precise(boxes), _precise(others)
    overlap, union = iou(boxes, others, epsilon=epsilon)
    low = torch.minimum(boxes[..., :2], others[..., :2])
    high = torch.maximum(boxes[..., 2:], others[..., 2:])
    enclosing = _extent(low, high)
    waste = (enclosing - union) / _divisor(enclosing, epsilon)
    return overlap - torch.where(enclosing > 0, waste, 0.0)


def _divisor(areas: Tensor, epsilon: float) -> Tensor:
    return (areas + epsilon).clamp(min=torch.finfo(areas.dtype).tiny)


def _extent(low: Tensor, high: Tensor) -> Tensor:
    """The area between two corners [..., 2], 0 where there is none."""
    width, height = (high - low).clamp(min=0).unbind(-1)  # the gradient of prod would be several kernels
    return width * height


def _precise(boxes: Tensor) -> Tensor:
    return boxes.to(torch.promote_types(boxes.dtype, torch.float32))
