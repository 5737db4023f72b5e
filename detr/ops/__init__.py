"""Operators with several forms: one function, and the choice of who computes it."""

from detr.ops.choice import deformable_attention, kernels

__all__ = ["deformable_attention", "kernels"]
