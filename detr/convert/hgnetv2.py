"""The names of HGNetv2's tensors, as rows for the rename tables of the models that are built on it."""

from __future__ import annotations

from collections.abc import Iterator

from detr.convert.renaming import Table

Rows = tuple[tuple[str, str], ...]

_BLOCK = "stages.{stage}.blocks.{block}"
_STEM = tuple((f"stem{part}", f"stem.conv{part}") for part in ("1", "2a", "2b", "3", "4"))
_STAGES = (
    ("stages.{stage}.downsample", "stages.{stage}.downsample"),
    (f"{_BLOCK}.layers.{{layer}}", f"{_BLOCK}.layers.{{layer}}"),
    (f"{_BLOCK}.layers.{{layer}}.conv1", f"{_BLOCK}.layers.{{layer}}.0"),
    (f"{_BLOCK}.layers.{{layer}}.conv2", f"{_BLOCK}.layers.{{layer}}.1"),
)
_ENDS = (("aggregation.0", "squeeze"), ("aggregation.1", "excite"))
_ENDS_OF_RTDETR = (("aggregation_squeeze_conv", "squeeze"), ("aggregation_excitation_conv", "excite"))


def _official(ends: tuple[tuple[str, str], ...]) -> Rows:
    names = [(f"stem.{theirs}", ours) for theirs, ours in _STEM]
    names += [*_STAGES, *((f"{_BLOCK}.{theirs}", f"{_BLOCK}.{ours}") for theirs, ours in ends)]
    return tuple(row for theirs, ours in names for row in _parts(f"backbone.{theirs}", f"backbone.{ours}"))


def hugging_face(theirs: str) -> Rows:
    """The rows for transformers' HGNetV2 under the name `theirs`, the same in its versions 4 and 5."""
    names = [(f"embedder.{stem}", ours) for stem, ours in _STEM]
    names += [(f"encoder.{part}", ours) for part, ours in _STAGES]
    names += [(f"encoder.{_BLOCK}.{end}", f"{_BLOCK}.{ours}") for end, ours in _ENDS]
    parts = ("convolution", "normalization", "lab")
    return tuple(row for part, ours in names for row in _parts(f"{theirs}.{part}", f"backbone.{ours}", parts))


def _parts(theirs: str, ours: str, parts: tuple[str, str, str] = ("conv", "bn", "lab")) -> Iterator[tuple[str, str]]:
    for their_part, our_part in zip(parts, ("conv", "norm", "activation"), strict=True):
        yield f"{theirs}.{their_part}.*", f"{ours}.{our_part}.*"


ROWS = _official(_ENDS)
"""The official names of D-FINE, DEIM and DEIMv2."""

ROWS_OF_RTDETR: Rows = (
    ("backbone.stem.stem2a.conv.1.*", "backbone.stem.conv2a.conv.*"),
    ("backbone.stem.stem2b.conv.1.*", "backbone.stem.conv2b.conv.*"),
    *_official(_ENDS_OF_RTDETR),
)
"""The official names of RT-DETR."""

TABLES: dict[str, Table] = {
    f"hgnetv2-{source}": Table(
        rows=tuple((theirs.removeprefix("backbone."), ours) for theirs, ours in rows),
        marks=(mark, "stages.{stage}.blocks.{block}.layers.{layer}.conv.weight"),
        foreign=("backbone.*", "decoder.*"),
    )
    for source, rows, mark in (
        ("official", ROWS, "stem.stem2a.conv.weight"),
        ("rtdetr", ROWS_OF_RTDETR, "stem.stem2a.conv.1.weight"),
    )
}
"""Files that hold a backbone and nothing else: of D-FINE and its followers, and of RT-DETR."""
