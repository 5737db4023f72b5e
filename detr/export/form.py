"""What an exported file takes and gives, chosen when it is written."""

from __future__ import annotations

from dataclasses import dataclass

from detr.errors import UsageError


@dataclass(frozen=True)
class Form:
    """As `detr export` has it, said once for all kinds of files.

    Without `preprocessing` a file takes what the network takes: `images` [B, C, h, w] float32 as `config.input` says,
    and of models that keep the aspect `padding` [B, h, w] bool. With it: `images` [B, h, w, C] uint8 of any size,
    one size in a batch; three channels are RGB.

    Without `max_det` it gives what the network gives: `logits` [B, Q, slots], `boxes` [B, Q, 4] cxcywh in [0, 1]. With
    it, best first: `scores` [B, K], `labels` [B, K] int64, `boxes` [B, K, 4] xyxy in pixels of the pictures, whose
    `sizes` [B, 2] int64 (height, width) it takes where it doesn't see the pictures themselves.
    """

    preprocessing: bool = False
    max_det: int | None = None
    open_batch: bool = True  # any number of images at once, else one
    open_size: bool = False  # images of any size that the network takes, else of the size of its settings
    half: bool = False  # weights and most of the computation in float16; what is taken and given stays float32

    def __post_init__(self) -> None:
        if self.preprocessing and self.open_size:
            raise UsageError("a file that resizes pictures itself takes any; leave the size out of what is dynamic")
        if self.max_det is not None and self.max_det < 1:
            raise UsageError(f"max_det {self.max_det}: expected at least 1")


PLAIN = Form()
