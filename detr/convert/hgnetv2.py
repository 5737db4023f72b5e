"""The names of HGNetv2's tensors, as rows for the rename tables of the models that are built on it."""

from __future__ import annotations

from collections.abc import Iterator

Rows = tuple[tuple[str, str], ...]

_BLOCK = "stages.{stage}.blocks.{block}"
_CONVOLUTIONS = (
    *((f"stem.stem{part}", f"stem.conv{part}") for part in ("1", "2a", "2b", "3", "4")),
    ("stages.{stage}.downsample", "stages.{stage}.downsample"),
    (f"{_BLOCK}.layers.{{layer}}", f"{_BLOCK}.layers.{{layer}}"),
    (f"{_BLOCK}.layers.{{layer}}.conv1", f"{_BLOCK}.layers.{{layer}}.0"),
    (f"{_BLOCK}.layers.{{layer}}.conv2", f"{_BLOCK}.layers.{{layer}}.1"),
)


def rows(squeeze: str, excite: str) -> Rows:
    """Their backbone, ours; `squeeze` and `excite` are their names of the two convolutions at the end of a block."""
    ends = ((f"{_BLOCK}.{squeeze}", f"{_BLOCK}.squeeze"), (f"{_BLOCK}.{excite}", f"{_BLOCK}.excite"))
    return tuple(
        row
        for theirs, ours in (*_CONVOLUTIONS, *ends)
        for row in _convolution(f"backbone.{theirs}", f"backbone.{ours}")
    )


def _convolution(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield f"{theirs}.conv.*", f"{ours}.conv.*"
    yield f"{theirs}.bn.*", f"{ours}.norm.*"
    yield f"{theirs}.lab.*", f"{ours}.activation.*"


ROWS = rows("aggregation.0", "aggregation.1")
"""The names in D-FINE, DEIM and DEIMv2."""
