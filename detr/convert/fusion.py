"""The official names of ELAN blocks and lean downsampling (D-FINE, DEIM, DEIMv2), as rows for rename tables."""

from __future__ import annotations

from collections.abc import Callable

Rows = tuple[tuple[str, str], ...]


def elan(theirs: str, ours: str, block: Callable[[str, str], Rows]) -> Rows:
    """An `ELANBlock`; `block` gives the rows of a CSP block in it."""
    return (
        (f"{theirs}.cv1.*", f"{ours}.split.*"),
        *block(f"{theirs}.cv2.0", f"{ours}.first.0"),
        (f"{theirs}.cv2.1.*", f"{ours}.first.1.*"),
        *block(f"{theirs}.cv3.0", f"{ours}.second.0"),
        (f"{theirs}.cv3.1.*", f"{ours}.second.1.*"),
        (f"{theirs}.cv4.*", f"{ours}.out.*"),
    )


def joint(theirs: str, ours: str) -> Rows:
    """A `JointCSPBlock`."""
    return ((f"{theirs}.conv1.*", f"{ours}.both.*"), *repvgg(theirs, ours))


def repvgg(theirs: str, ours: str) -> Rows:
    """The RepVGG blocks of a CSP block."""
    return (
        (f"{theirs}.bottlenecks.{{block}}.conv1.*", f"{ours}.blocks.{{block}}.conv3x3.*"),
        (f"{theirs}.bottlenecks.{{block}}.conv2.*", f"{ours}.blocks.{{block}}.conv1x1.*"),
    )


def lean(theirs: str, ours: str) -> Rows:
    """A `LeanDownsample`."""
    return ((f"{theirs}.0.cv1.*", f"{ours}.mix.*"), (f"{theirs}.0.cv2.*", f"{ours}.shrink.*"))
