"""What the tests of deformable attention give to it."""

import torch

NAMES = ("value", "references", "offsets", "logits")


def given(shapes, points, *, references="points", batch=2, queries=5, heads=2, channels=3, dtype=torch.float64, seed=0):
    """The four tensors by name, all with gradients; some samples lie outside the maps. References: points, boxes, or
    either for each level by itself ("points of levels")."""
    draw = torch.Generator().manual_seed(seed)
    positions = sum(height * width for height, width in shapes)
    each = (len(shapes),) if references.endswith("of levels") else ()
    sides = 2 if references.startswith("points") else 4
    tensors = {
        "value": torch.randn(batch, positions, heads, channels, generator=draw, dtype=torch.float64),
        "references": torch.rand(batch, queries, *each, sides, generator=draw, dtype=torch.float64),
        "offsets": torch.randn(batch, queries, heads, sum(points), 2, generator=draw, dtype=torch.float64) * 2,
        "logits": torch.randn(batch, queries, heads, sum(points), generator=draw, dtype=torch.float64),
    }
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in tensors.items()}


def padding_of(value):
    """[B, S], every third position; none in the first image"""
    padding = torch.zeros(value.shape[:2], dtype=torch.bool)
    padding[1:, ::3] = True
    return padding
