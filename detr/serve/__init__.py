"""A detector behind HTTP: pictures and videos in, results as JSON out, and a page to try it on."""

from __future__ import annotations

from detr.serve.limits import Limits, Refused

__all__ = ["Limits", "Refused"]
