"""Dense multi-head attention (Vaswani et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr.errors import UsageError


def require_shared_evenly(channels: int, heads: int) -> None:
    """UsageError where the heads can't have as many channels each."""
    if heads < 1 or channels % heads:
        raise UsageError(f"{channels} channels can't be shared among {heads} heads; expected a multiple of the heads")


class _Attention(nn.Module):
    """The matrices of both kinds. `dropout` is of the attention weights, in training.

    Computed by `scaled_dot_product_attention`, which takes PyTorch's FlashAttention where device, type and mask allow
    it. UsageError where `channels` isn't a multiple of `heads`.
    """

    def __init__(self, channels: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        require_shared_evenly(channels, heads)
        self.heads, self.dropout = heads, dropout
        self.project_in = nn.Linear(channels, 3 * channels)  # rows: queries, keys, values
        self.project_out = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.project_in.weight)
        nn.init.zeros_(self.project_in.bias)
        nn.init.zeros_(self.project_out.bias)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, Q, D], [B, S, D], [B, S, D] as projected -> [B, Q, D]"""
        query, key, value = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (query, key, value))
        if mask is not None and mask.dim() == 3:
            mask = mask[:, None]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.project_out(attended.transpose(1, 2).flatten(2))


class SelfAttention(_Attention):
    """Queries and keys see where they are, values don't: q = k = x + position, v = x (as in Carion et al. 2020)."""

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, Q, D], position alike (or broadcasting); mask [..., Q, Q] bool, True where a row may look at a column."""
        channels = x.shape[-1]
        weight, bias = self.project_in.weight, self.project_in.bias
        placed = F.linear(x + position, weight[: 2 * channels], bias[: 2 * channels])
        query, key = placed.chunk(2, -1)
        value = F.linear(x, weight[2 * channels :], bias[2 * channels :])
        return self._attend(query, key, value, mask)


class CrossAttention(_Attention):
    """Queries look at a memory: each gets the values whose keys fit it, by as much as they do."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """query [B, Q, D]; key and value [B, S, D]; mask [..., Q or 1, S] bool, True where a row may look."""
        weights, biases = self.project_in.weight.chunk(3), self.project_in.bias.chunk(3)
        query, key, value = map(F.linear, (query, key, value), weights, biases)
        return self._attend(query, key, value, mask)


def may_look(padding: Tensor) -> Tensor:
    """[B, S] True where padding -> [B, 1, S] mask for attention. A wholly padded image looks at everything: no NaN."""
    return (~padding | padding.all(-1, keepdim=True))[:, None]


def groups_apart(num_groups: int, group: int, num_matching: int, device: torch.device | str | None = None) -> Tensor:
    """[K + Q, K + Q] mask of contrastive denoising, K = num_groups * group, True where a row may look at a column.

    Denoising queries see their own group and the matching queries; matching queries see each other only.
    """
    kind = torch.arange(num_groups, device=device).repeat_interleave(group)
    kind = torch.cat([kind, torch.full((num_matching,), -1, device=device)])
    return (kind[:, None] == kind[None]) | (kind[None] == -1)
