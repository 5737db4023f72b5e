"""What this machine's FFmpeg can write."""

from __future__ import annotations

import av

_WANTED = ("libx264", "h264", "libx265", "libvpx-vp9", "libsvtav1")


def encoders() -> list[str]:
    """Those of the usual video encoders that are there; we write with libx264."""
    return [name for name in _WANTED if name in av.codecs_available and _encodes(name)]


def _encodes(name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
