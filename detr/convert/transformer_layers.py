"""The names of PyTorch's own attention and transformer layers, which the official programs build on."""

from __future__ import annotations

from detr.convert.renaming import Row


def attention(theirs: str, ours: str) -> tuple[Row, ...]:
    """Rows for a `torch.nn.MultiheadAttention`."""
    return (
        (f"{theirs}.in_proj_weight", f"{ours}.project_in.weight"),
        (f"{theirs}.in_proj_bias", f"{ours}.project_in.bias"),
        (f"{theirs}.out_proj.*", f"{ours}.project_out.*"),
    )


def layer(theirs: str, ours: str) -> tuple[Row, ...]:
    """Rows for the self-attention, the feed-forward part and the norms of a layer."""
    return (
        *attention(f"{theirs}.self_attn", f"{ours}.self_attention"),
        (f"{theirs}.linear{{n}}.*", f"{ours}.feed_forward.linear{{n}}.*"),
        (f"{theirs}.norm{{n}}.*", f"{ours}.norm{{n}}.*"),
    )
