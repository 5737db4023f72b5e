"""From what the network says to boxes in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detr.boxes import cxcywh_to_xyxy
from detr.layers.position import precise
from detr.records import Detections, Output


def select(
    output: Output,
    sizes: Sequence[tuple[int, int]],
    *,
    conf: float = 0.0,
    max_det: int = 300,
    classes: Sequence[int] | None = None,
) -> list[Detections]:
    """The `max_det` best (query, class) pairs of each image, best first, those scored below `conf` left out.

    `sizes` are the (h, w) of the images as the boxes are wanted. One query may give several detections of different
    classes, as in the official post-processing; boxes may reach over the border. With `classes` only those compete.
    """
    last = output.layers[-1]
    logits = precise(last.logits)
    if classes is not None:
        others = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
        others[list(classes)] = False
        logits = logits.masked_fill(others, -torch.inf)
    scores = logits.sigmoid().flatten(1)
    count = len(classes) * logits.shape[1] if classes is not None else scores.shape[1]
    scores, indices = scores.topk(min(max_det, count), dim=1)
    queries, labels = indices // logits.shape[-1], indices % logits.shape[-1]
    boxes = cxcywh_to_xyxy(precise(last.boxes)).gather(1, queries[..., None].expand(-1, -1, 4))
    scale = torch.tensor([(w, h, w, h) for h, w in sizes], dtype=boxes.dtype, device=boxes.device)
    boxes = boxes * scale[:, None]
    return [_above(conf, *each) for each in zip(boxes, scores, labels, strict=True)]


def _above(conf: float, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    keep = scores >= conf
    return Detections(boxes[keep], scores[keep], labels[keep])
